//! The recursive descent that reads expressions into trees, names and values put in for their placeholders.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::path::{Path, Step};
use super::refusal::{Answer, Refusal};
use super::tokens::{Token, tokens};
use super::tree::{Comparator, Condition, Operand, Placeholders, Term, Update};
use super::value::Value;

/// Bytes of one expression.
const EXPRESSION_MAX: usize = 4096;
/// How deep parentheses, NOT and functions may nest: the reader's own stack.
const DEPTH_MAX: usize = 64;

static RESERVED: LazyLock<BTreeSet<&str>> = LazyLock::new(|| {
    let words = include_str!("reserved.txt").lines().filter(|line| !line.starts_with('#'));
    words.flat_map(str::split_whitespace).collect()
});

pub struct Parser<'p, 'a> {
    /// The request's member that is read, for messages.
    member: &'static str,
    tokens: Vec<Token<'p>>,
    at: usize,
    depth: usize,
    placeholders: &'p Placeholders<'a>,
}

type Read<T> = Answer<T>;

impl<'p, 'a> Parser<'p, 'a> {
    pub fn new(member: &'static str, text: &'p str, placeholders: &'p Placeholders<'a>) -> Read<Self> {
        let refuse = |message: String| Refusal::validation(format!("Invalid {member}: {message}"));
        if text.trim().is_empty() {
            return Err(refuse("The expression can not be empty;".into()));
        }
        if text.len() > EXPRESSION_MAX {
            return Err(refuse(format!(
                "Expression size has exceeded the maximum allowed size; expression size: {}",
                text.len()
            )));
        }
        let tokens = tokens(text).map_err(|near| {
            let token: String = near.chars().take(1).collect();
            refuse(format!("Syntax error; token: \"{token}\", near: \"{}\"", near.chars().take(8).collect::<String>()))
        })?;
        Ok(Self { member, tokens, at: 0, depth: 0, placeholders })
    }

    pub fn condition(mut self) -> Read<Condition<'a>> {
        let condition = self.any_of()?;
        self.end()?;
        Ok(condition)
    }

    pub fn projection(mut self) -> Read<Vec<Path>> {
        let mut paths = vec![self.path()?];
        while self.takes(",") {
            paths.push(self.path()?);
        }
        self.end()?;
        Ok(paths)
    }

    pub fn update(mut self) -> Read<Update<'a>> {
        let mut update = Update::default();
        let mut seen = BTreeSet::new();
        while let Some(token) = self.peek() {
            let clause = token.text().to_ascii_uppercase();
            if !matches!(token, Token::Word(_)) || !matches!(&*clause, "SET" | "REMOVE" | "ADD" | "DELETE") {
                return Err(self.syntax());
            }
            self.at += 1;
            if !seen.insert(clause.clone()) {
                return Err(
                    self.refuse(format!("The \"{clause}\" section can only be used once in an update expression;"))
                );
            }
            loop {
                let path = self.path()?;
                match &*clause {
                    "SET" => {
                        self.expect("=")?;
                        update.set.push((path, self.sum()?));
                    }
                    "REMOVE" => update.remove.push(path),
                    "ADD" => update.add.push((path, self.value()?)),
                    _ => update.delete.push((path, self.value()?)),
                }
                if !self.takes(",") {
                    break;
                }
            }
        }
        Ok(update)
    }

    fn any_of(&mut self) -> Read<Condition<'a>> {
        let mut left = self.all_of()?.0;
        while self.takes_word("OR") {
            left = Condition::Or(Box::new(left), Box::new(self.all_of()?.0));
        }
        Ok(left)
    }

    /// The second: whether it is but one condition in parentheses.
    fn all_of(&mut self) -> Read<(Condition<'a>, bool)> {
        let (mut left, mut bare) = self.negated()?;
        while self.takes_word("AND") {
            left = Condition::And(Box::new(left), Box::new(self.negated()?.0));
            bare = false;
        }
        Ok((left, bare))
    }

    fn negated(&mut self) -> Read<(Condition<'a>, bool)> {
        self.deeper(|this| {
            if this.takes_word("NOT") {
                return Ok((Condition::Not(Box::new(this.negated()?.0)), false));
            }
            if !this.takes("(") {
                return Ok((this.comparison()?, false));
            }
            let (mut inner, doubled) = this.all_of()?;
            if doubled && this.peek() == Some(Token::Sign(")")) {
                return Err(this.refuse("The expression has redundant parentheses;".into()));
            }
            while this.takes_word("OR") {
                inner = Condition::Or(Box::new(inner), Box::new(this.all_of()?.0));
            }
            this.expect(")")?;
            Ok((inner, true))
        })
    }

    fn comparison(&mut self) -> Read<Condition<'a>> {
        if let (Some(Token::Word(name)), Some(Token::Sign("("))) = (self.peek(), self.tokens.get(self.at + 1))
            && name != "size"
        {
            return self.function(name);
        }
        let left = self.operand()?;
        if self.takes_word("BETWEEN") {
            let low = self.operand()?;
            if !self.takes_word("AND") {
                return Err(self.syntax());
            }
            return Ok(Condition::Between(left, low, self.operand()?));
        }
        if self.takes_word("IN") {
            self.expect("(")?;
            let mut list = vec![self.operand()?];
            while self.takes(",") {
                list.push(self.operand()?);
            }
            self.expect(")")?;
            if list.len() > 100 {
                let message =
                    "Invalid number of operands for operator or function; operator or function: IN".to_owned();
                return Err(self.refuse(format!("{message}, number of operands: {}", list.len() + 1)));
            }
            return Ok(Condition::In(left, list));
        }
        let comparator = match self.peek() {
            Some(Token::Sign("=")) => Comparator::Equal,
            Some(Token::Sign("<>")) => Comparator::NotEqual,
            Some(Token::Sign("<")) => Comparator::Less,
            Some(Token::Sign("<=")) => Comparator::LessOrEqual,
            Some(Token::Sign(">")) => Comparator::Greater,
            Some(Token::Sign(">=")) => Comparator::GreaterOrEqual,
            _ => return Err(self.syntax()),
        };
        self.at += 1;
        let right = self.operand()?;
        if let (Operand::Path(a), Operand::Path(b)) = (&left, &right)
            && a == b
        {
            let message =
                "The first operand must be distinct from the remaining operands for this operator or function";
            return Err(self.refuse(format!("{message}; operator: {}, first operand: {a}", comparator.sign())));
        }
        if !matches!(comparator, Comparator::Equal | Comparator::NotEqual) {
            self.ordered(comparator.sign(), [&left, &right])?;
        }
        Ok(Condition::Compare(left, comparator, right))
    }

    /// Fails if a value has a type without order.
    fn ordered<'v>(&self, what: &str, operands: impl IntoIterator<Item = &'v Operand<'a>>) -> Read<()>
    where
        'a: 'v,
    {
        for operand in operands {
            if let Operand::Value(value) = operand
                && !matches!(value, Value::S(_) | Value::N(_) | Value::B(_))
            {
                return Err(self.operand_type(what, value));
            }
        }
        Ok(())
    }

    fn operand_type(&self, what: &str, value: &Value) -> Refusal {
        self.refuse(format!(
            "Incorrect operand type for operator or function; operator or function: {what}, operand type: {}",
            value.kind()
        ))
    }

    fn function(&mut self, name: &str) -> Read<Condition<'a>> {
        self.at += 2;
        let condition = match name {
            "attribute_exists" => Condition::Exists(self.path()?),
            "attribute_not_exists" => Condition::NotExists(self.path()?),
            "attribute_type" => {
                let path = self.path()?;
                self.expect(",")?;
                let kind = match self.value()? {
                    Value::S(kind)
                        if matches!(&**kind, "S" | "N" | "B" | "SS" | "NS" | "BS" | "M" | "L" | "BOOL" | "NULL") =>
                    {
                        kind
                    }
                    Value::S(kind) => {
                        return Err(self.refuse(format!("Invalid attribute type name found; type: {kind}")));
                    }
                    other => return Err(self.operand_type(name, other)),
                };
                Condition::HasType(path, kind)
            }
            "begins_with" => {
                let (text, start) = self.two_operands()?;
                for operand in [&text, &start] {
                    if let Operand::Value(value) = operand
                        && !matches!(value, Value::S(_) | Value::B(_))
                    {
                        return Err(self.operand_type(name, value));
                    }
                }
                Condition::BeginsWith(text, start)
            }
            "contains" => {
                let (whole, part) = self.two_operands()?;
                Condition::Contains(whole, part)
            }
            _ => return Err(self.refuse(format!("Invalid function name; function: {name}"))),
        };
        self.expect(")")?;
        Ok(condition)
    }

    fn two_operands(&mut self) -> Read<(Operand<'a>, Operand<'a>)> {
        let first = self.operand()?;
        self.expect(",")?;
        Ok((first, self.operand()?))
    }

    fn operand(&mut self) -> Read<Operand<'a>> {
        match self.peek() {
            Some(Token::Value(_)) => self.value().map(Operand::Value),
            Some(Token::Word("size")) if self.tokens.get(self.at + 1) == Some(&Token::Sign("(")) => {
                self.at += 2;
                let path = self.path()?;
                self.expect(")")?;
                Ok(Operand::Size(path))
            }
            _ => self.path().map(Operand::Path),
        }
    }

    fn sum(&mut self) -> Read<Term<'a>> {
        let left = self.term()?;
        if self.takes("+") {
            return Ok(Term::Plus(Box::new(left), Box::new(self.term()?)));
        }
        if self.takes("-") {
            return Ok(Term::Minus(Box::new(left), Box::new(self.term()?)));
        }
        Ok(left)
    }

    fn term(&mut self) -> Read<Term<'a>> {
        self.deeper(|this| {
            let called = this.tokens.get(this.at + 1) == Some(&Token::Sign("("));
            match this.peek() {
                Some(Token::Value(_)) => this.value().map(Term::Value),
                Some(Token::Sign("(")) => {
                    this.at += 1;
                    let inner = this.sum()?;
                    this.expect(")")?;
                    Ok(inner)
                }
                Some(Token::Word("if_not_exists")) if called => {
                    this.at += 2;
                    let path = this.path()?;
                    this.expect(",")?;
                    let other = this.term()?;
                    this.expect(")")?;
                    Ok(Term::IfNotExists(path, Box::new(other)))
                }
                Some(Token::Word("list_append")) if called => {
                    this.at += 2;
                    let first = this.term()?;
                    this.expect(",")?;
                    let second = this.term()?;
                    this.expect(")")?;
                    Ok(Term::ListAppend(Box::new(first), Box::new(second)))
                }
                Some(Token::Word(name)) if called => {
                    Err(this.refuse(format!("Invalid function name; function: {name}")))
                }
                _ => this.path().map(Term::Path),
            }
        })
    }

    fn value(&mut self) -> Read<&'a Value> {
        let Some(Token::Value(placeholder)) = self.peek() else { return Err(self.syntax()) };
        self.at += 1;
        self.placeholders.value(placeholder).ok_or_else(|| {
            let message = "An expression attribute value used in expression is not defined; attribute value";
            self.refuse(format!("{message}: {placeholder}"))
        })
    }

    fn path(&mut self) -> Read<Path> {
        let mut path = Path { root: self.name()?, steps: Vec::new() };
        loop {
            if self.takes(".") {
                path.steps.push(Step::Name(self.name()?));
            } else if self.takes("[") {
                let Some(Token::Index(index)) = self.peek() else { return Err(self.syntax()) };
                let index = index.parse().map_err(|_| {
                    self.refuse(format!("List index is not within the allowable range; index: [{index}]"))
                })?;
                self.at += 1;
                self.expect("]")?;
                path.steps.push(Step::Index(index));
            } else {
                return Ok(path);
            }
        }
    }

    fn name(&mut self) -> Read<String> {
        let name = match self.peek() {
            Some(Token::Name(placeholder)) => self.placeholders.name(placeholder).ok_or_else(|| {
                let message = "An expression attribute name used in the document path is not defined; attribute name";
                self.refuse(format!("{message}: {placeholder}"))
            })?,
            Some(Token::Word(word)) => {
                if RESERVED.contains(&*word.to_ascii_uppercase()) {
                    return Err(self.refuse(format!("Attribute name is a reserved keyword; reserved keyword: {word}")));
                }
                word
            }
            _ => return Err(self.syntax()),
        };
        self.at += 1;
        Ok(name.to_owned())
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth == DEPTH_MAX {
            return Err(self.refuse("The expression is nested too deeply;".into()));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn peek(&self) -> Option<Token<'p>> {
        self.tokens.get(self.at).copied()
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = self.peek().is_some_and(|token| matches!(token, Token::Sign(text) if text == sign));
        self.at += usize::from(found);
        found
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found =
            self.peek().is_some_and(|token| matches!(token, Token::Word(text) if text.eq_ignore_ascii_case(word)));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Read<()> {
        if self.takes(sign) { Ok(()) } else { Err(self.syntax()) }
    }

    fn end(&self) -> Read<()> {
        if self.at == self.tokens.len() { Ok(()) } else { Err(self.syntax()) }
    }

    fn refuse(&self, message: String) -> Refusal {
        Refusal::validation(format!("Invalid {}: {message}", self.member))
    }

    fn syntax(&self) -> Refusal {
        let from = self.at.saturating_sub(1).min(self.tokens.len());
        let near: Vec<&str> = self.tokens[from..].iter().take(3).map(|token| token.text()).collect();
        let token = self.peek().map_or("<EOF>", Token::text);
        self.refuse(format!("Syntax error; token: \"{token}\", near: \"{}\"", near.join(" ")))
    }
}
