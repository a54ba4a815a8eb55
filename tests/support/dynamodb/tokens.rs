//! Splits an expression into its tokens.

/// What stands in an expression; the text is as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A bare name or a keyword.
    Word(&'a str),
    /// `#name`
    Name(&'a str),
    /// `:value`
    Value(&'a str),
    Index(&'a str),
    Sign(&'a str),
}

impl<'a> Token<'a> {
    pub fn text(self) -> &'a str {
        match self {
            Self::Word(text) | Self::Name(text) | Self::Value(text) | Self::Index(text) | Self::Sign(text) => text,
        }
    }
}

/// Longer signs first.
const SIGNS: [&str; 14] = ["<>", "<=", ">=", "<", ">", "=", "(", ")", "[", "]", ",", ".", "+", "-"];

/// All tokens, or the text at which there is none.
pub fn tokens(mut text: &str) -> Result<Vec<Token<'_>>, &str> {
    let mut found = Vec::with_capacity(text.len() / 4);
    loop {
        text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = text.chars().next() else { return Ok(found) };
        let word = |from: usize| {
            let rest = &text[from..];
            from + rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
        };
        let (token, length) = match first {
            'a'..='z' | 'A'..='Z' => (Token::Word(&text[..word(0)]), word(0)),
            '#' | ':' if word(1) > 1 => {
                let length = word(1);
                (if first == '#' { Token::Name(&text[..length]) } else { Token::Value(&text[..length]) }, length)
            }
            '0'..='9' => {
                let length = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
                (Token::Index(&text[..length]), length)
            }
            _ => {
                let sign = SIGNS.into_iter().find(|sign| text.starts_with(sign)).ok_or(text)?;
                (Token::Sign(sign), sign.len())
            }
        };
        found.push(token);
        text = &text[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_split_where_its_signs_are() {
        let split = |text| tokens(text).unwrap().into_iter().map(Token::text).collect::<Vec<_>>().join(" ");
        assert_eq!(
            split("#a.b[12]<>:v AND(size(c)<= :w)"),
            "# a . b [ 12 ] <> :v AND ( size ( c ) <= :w )".replace("# a", "#a")
        );
        assert_eq!(split(" SET a=b+:c,d=e-:f\n"), "SET a = b + :c , d = e - :f");
        assert_eq!(tokens("a == b").unwrap().len(), 4);
        for (wrong, at) in [("a ! b", "! b"), ("# = :a", "# = :a"), ("a = 'b'", "'b'"), ("é", "é")] {
            assert_eq!(tokens(wrong), Err(at));
        }
    }
}
