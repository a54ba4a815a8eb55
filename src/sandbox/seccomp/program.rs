//! From rules to a program of the kernel's packet filter (seccomp(2), Documentation/networking/filter.rst): system call numbers are found by
//! bisection, so that a program costs little to check, to compile and to run.
//!
//! ```text
//! foreign architecture? → its verdict
//! number → bisection over ranges of equal verdict → verdict, or the tests of its arguments
//! ```

use libc::sock_filter;

use super::arguments::Test;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// Fails with this number.
    Error(i32),
    /// The daemon is told and answers in the kernel's stead.
    Tell,
    /// SIGSYS, for every thread of the process.
    Kill,
}

impl Verdict {
    fn code(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Error(number) => libc::SECCOMP_RET_ERRNO | (number as u32 & libc::SECCOMP_RET_DATA),
            Self::Tell => libc::SECCOMP_RET_USER_NOTIF,
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// What a range of numbers leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Verdict(Verdict),
    /// An index into the conditional rules.
    Tests(usize),
}

/// Rules, from which a program is made. The later of two rules for one number counts.
pub struct Rules<'a> {
    foreign: Verdict,
    /// First number of a range, and what the range leads to; sorted.
    ranges: Vec<(u32, Target)>,
    conditional: Vec<(&'a [&'a [Test]], Verdict)>,
}

/// `AUDIT_ARCH_*` of <linux/audit.h>.
#[cfg(target_arch = "x86_64")]
pub const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets in struct seccomp_data.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

fn plain(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn branch(code: u32, k: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: then, jf: otherwise, k }
}

/// An instruction, or a jump to tests whose place is not known yet.
enum Draft {
    Done(sock_filter),
    ToTests(usize),
}

impl<'a> Rules<'a> {
    /// `foreign`: for calls by another architecture's interface. `unlisted`: for numbers without a rule.
    pub fn new(foreign: Verdict, unlisted: Verdict) -> Self {
        Self { foreign, ranges: vec![(0, Target::Verdict(unlisted))], conditional: Vec::new() }
    }

    /// All numbers from `first` to `last`, both included.
    pub fn range(&mut self, first: u32, last: u32, verdict: Verdict) {
        self.set(first, last, Target::Verdict(verdict));
    }

    pub fn call(&mut self, number: i64, verdict: Verdict) {
        self.range(number as u32, number as u32, verdict);
    }

    /// Allows a call if every test of one row passes; else `otherwise`.
    pub fn call_if(&mut self, number: i64, rows: &'a [&'a [Test]], otherwise: Verdict) {
        self.conditional.push((rows, otherwise));
        self.set(number as u32, number as u32, Target::Tests(self.conditional.len() - 1));
    }

    fn set(&mut self, first: u32, last: u32, target: Target) {
        let after = self.at(last);
        self.ranges.retain(|(start, _)| *start < first || *start > last);
        self.ranges.push((first, target));
        if let Some(next) = last.checked_add(1)
            && !self.ranges.iter().any(|(start, _)| *start == next)
        {
            self.ranges.push((next, after));
        }
        self.ranges.sort_unstable_by_key(|(start, _)| *start);
    }

    fn at(&self, number: u32) -> Target {
        let index = self.ranges.partition_point(|(start, _)| *start <= number);
        self.ranges[index - 1].1
    }

    pub fn compile(mut self) -> Vec<sock_filter> {
        self.ranges.dedup_by(|next, before| next.1 == before.1);
        let mut drafts = vec![
            Draft::Done(plain(LOAD, ARCHITECTURE_AT)),
            Draft::Done(branch(IF_EQUAL, ARCHITECTURE, 1, 0)),
            Draft::Done(plain(RETURN, self.foreign.code())),
            Draft::Done(plain(LOAD, NUMBER_AT)),
        ];
        drafts.extend(bisect(&self.ranges));
        let mut blocks = Vec::new();
        let mut places = Vec::new();
        for (rows, otherwise) in &self.conditional {
            places.push(drafts.len() + blocks.len());
            for row in *rows {
                blocks.extend(tests(row));
            }
            blocks.push(plain(RETURN, otherwise.code()));
        }
        let place = |(at, draft): (usize, Draft)| match draft {
            Draft::Done(instruction) => instruction,
            Draft::ToTests(index) => plain(JUMP, (places[index] - at - 1) as u32),
        };
        let mut program: Vec<sock_filter> = drafts.into_iter().enumerate().map(place).collect();
        program.extend(blocks);
        program
    }
}

/// The number is loaded; leads to what its range says.
fn bisect(ranges: &[(u32, Target)]) -> Vec<Draft> {
    let [_, _, ..] = ranges else {
        let leaf = match ranges[0].1 {
            Target::Verdict(verdict) => Draft::Done(plain(RETURN, verdict.code())),
            Target::Tests(index) => Draft::ToTests(index),
        };
        return vec![leaf];
    };
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let below = bisect(lower);
    let mut all = Vec::new();
    match u8::try_from(below.len()) {
        Ok(length) => all.push(Draft::Done(branch(IF_AT_LEAST, upper[0].0, length, 0))),
        Err(_) => {
            // Conditional jumps reach 255 instructions, unconditional ones any number.
            all.push(Draft::Done(branch(IF_AT_LEAST, upper[0].0, 0, 1)));
            all.push(Draft::Done(plain(JUMP, below.len() as u32)));
        }
    }
    all.extend(below);
    all.extend(bisect(upper));
    all
}

/// Returns ALLOW if all pass, else goes on behind.
fn tests(row: &[Test]) -> Vec<sock_filter> {
    let mut backwards = vec![plain(RETURN, Verdict::Allow.code())];
    for test in row.iter().rev() {
        let behind = backwards.len() as u8;
        let (then, otherwise) = if test.equal { (0, behind) } else { (behind, 0) };
        backwards.push(branch(IF_EQUAL, test.value, then, otherwise));
        if test.mask != u32::MAX {
            backwards.push(plain(AND, test.mask));
        }
        // The low half comes first on every machine that this is built for.
        backwards.push(plain(LOAD, ARGUMENTS_AT + ARGUMENT_BYTES * u32::from(test.argument)));
    }
    backwards.reverse();
    backwards
}

#[cfg(test)]
pub mod machine {
    //! A machine for the instructions above, so that tests can ask a program for its verdict.

    use super::*;

    pub fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [number, architecture, 0, 0].to_vec();
        data.extend(arguments.iter().flat_map(|argument| [*argument as u32, (argument >> 32) as u32]));
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |passed: bool| usize::from(if passed { jt } else { jf });
            match u32::from(code) {
                LOAD => accumulator = data[k as usize / 4],
                AND => accumulator &= k,
                IF_EQUAL => at += jump(accumulator == k),
                IF_AT_LEAST => at += jump(accumulator >= k),
                JUMP => at += k as usize,
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::machine::run;
    use super::*;
    use proptest::prelude::*;

    fn verdict(number: u32) -> impl Strategy<Value = (u32, Verdict)> {
        let verdicts = prop_oneof![
            Just(Verdict::Allow),
            Just(Verdict::Tell),
            Just(Verdict::Kill),
            (1..200).prop_map(Verdict::Error),
        ];
        (0..number, verdicts)
    }

    proptest! {
        // Each looks at two thousand numbers.
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_number_gets_what_its_last_rule_says(rules in prop::collection::vec(verdict(2000), 0..700)) {
            let mut all = Rules::new(Verdict::Kill, Verdict::Error(1));
            for (number, verdict) in &rules {
                all.call(i64::from(*number), *verdict);
            }
            let program = all.compile();
            for number in (0..2001).chain([u32::MAX, 1 << 30]) {
                let last = rules.iter().rev().find(|(ruled, _)| *ruled == number);
                let expected = last.map_or(Verdict::Error(1), |(_, verdict)| *verdict);
                prop_assert_eq!(run(&program, ARCHITECTURE, number, [0; 6]), expected.code(), "{}", number);
                prop_assert_eq!(run(&program, !ARCHITECTURE, number, [0; 6]), Verdict::Kill.code());
            }
        }

        #[test]
        fn a_row_passes_if_all_its_tests_do(arguments in prop::array::uniform6(any::<u64>()), value in 0..4_u32) {
            let equal = Test { argument: 0, mask: 3, value, equal: true };
            let unequal = Test { argument: 5, mask: 1, value: 0, equal: false };
            let alone = Test { argument: 2, mask: u32::MAX, value: arguments[2] as u32, equal: true };
            let rows: [&[Test]; 2] = [&[equal, unequal], &[alone, equal, equal]];
            let mut rules = Rules::new(Verdict::Kill, Verdict::Tell);
            rules.call_if(7, &rows, Verdict::Error(3));
            let first = arguments[0] as u32 & 3 == value;
            let expected = if first { Verdict::Allow } else { Verdict::Error(3) };
            prop_assert_eq!(run(&rules.compile(), ARCHITECTURE, 7, arguments), expected.code());
        }
    }
}
