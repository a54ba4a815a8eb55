//! What the policies have learned of functions, written down so that it outlives the process.
//!
//! Losing it costs some cold starts and some calls without advice. So it is written seldom, and what can't be read, be it damaged or
//! of another form, is as if it had never been.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{FunctionId, VersionKey};

use super::advice::LastCalls;
use super::idle::IdleTimes;

/// The form that is written; another one is not read.
const FORM: u32 = 1;

/// Something learned, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    pub function: FunctionId,
    /// `None`: of the function whatever its version.
    pub version: Option<u32>,
    /// JSON of some hundred bytes, 3 KiB at most.
    pub text: String,
}

/// The same, understood.
#[derive(Debug)]
pub enum Learned {
    Pauses(FunctionId, Box<IdleTimes>),
    Calls(Box<VersionCalls>),
}

/// One version's last calls, and what of the version they are judged by.
#[derive(Clone, Debug)]
pub struct VersionCalls {
    pub version: VersionKey,
    pub memory_mb: u32,
    pub auto_memory: bool,
    pub last: LastCalls,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pauses {
    form: u32,
    /// Bin and count, of those that have any.
    bins: Vec<(usize, u16)>,
    beyond: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Calls {
    form: u32,
    memory_mb: u32,
    auto_memory: bool,
    /// Oldest first.
    calls: Vec<super::advice::Call>,
}

impl Lesson {
    pub fn of_pauses(function: FunctionId, idle: &IdleTimes) -> Self {
        let (bins, beyond) = idle.counts();
        Self { function, version: None, text: text(&Pauses { form: FORM, bins, beyond }) }
    }

    pub fn of_calls(of: &VersionCalls) -> Self {
        let VersionCalls { version, memory_mb, auto_memory, ref last } = *of;
        let calls = Calls { form: FORM, memory_mb, auto_memory, calls: last.oldest_first() };
        Self { function: version.function, version: Some(version.number), text: text(&calls) }
    }

    /// `None`: unreadable.
    pub fn read(&self) -> Option<Learned> {
        match self.version {
            None => {
                let read: Pauses = serde_json::from_str(&self.text).ok()?;
                let idle = IdleTimes::of_counts(&read.bins, read.beyond).filter(|_| read.form == FORM)?;
                Some(Learned::Pauses(self.function, Box::new(idle)))
            }
            Some(number) => {
                let Calls { form, memory_mb, auto_memory, calls } = serde_json::from_str(&self.text).ok()?;
                let last = LastCalls::of(&calls).filter(|_| form == FORM)?;
                let version = VersionKey { function: self.function, number };
                Some(Learned::Calls(Box::new(VersionCalls { version, memory_mb, auto_memory, last })))
            }
        }
    }
}

/// Numbers in lists are always written.
fn text(of: &impl Serialize) -> String {
    serde_json::to_string(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::advice::Used;
    use super::*;
    use crate::domain::limits::Limits;

    const FUNCTION: FunctionId = FunctionId(Uuid::from_u128(7));

    fn pauses(lesson: &Lesson) -> Option<IdleTimes> {
        match lesson.read()? {
            Learned::Pauses(FUNCTION, idle) => Some(*idle),
            other @ (Learned::Pauses(..) | Learned::Calls(_)) => panic!("{other:?}"),
        }
    }

    fn calls(lesson: &Lesson) -> Option<VersionCalls> {
        match lesson.read()? {
            Learned::Calls(calls) => Some(*calls),
            Learned::Pauses(..) => panic!("pauses"),
        }
    }

    fn used(n: u64) -> Used {
        Used {
            peak_memory_bytes: n * 1024,
            wall: Duration::from_micros(n * 17),
            cpu: Duration::from_micros(n * 5),
            throttled: Duration::from_micros(n),
            out_of_memory: n.is_multiple_of(7),
            timed_out: n.is_multiple_of(5),
        }
    }

    proptest! {
        #[test]
        fn pauses_come_back_as_they_were(minutes in prop::collection::vec(0..400_u64, 0..3000)) {
            let mut idle = IdleTimes::default();
            minutes.iter().for_each(|n| idle.note(Duration::from_secs(n * 60)));
            let lesson = Lesson::of_pauses(FUNCTION, &idle);
            prop_assert!(lesson.text.len() < 3 << 10, "{}", lesson.text.len());
            prop_assert_eq!(pauses(&lesson), Some(idle));
        }

        #[test]
        fn calls_come_back_with_what_follows_from_them(n in 1..100_u64, memory_mb in 64..2048_u32) {
            let mut last = LastCalls::default();
            (0..n).for_each(|n| last.note(&used(n * 3333)));
            let version = VersionKey { function: FUNCTION, number: 3 };
            let before = VersionCalls { version, memory_mb, auto_memory: true, last };
            let lesson = Lesson::of_calls(&before);
            prop_assert!(lesson.text.len() < 3 << 10, "{}", lesson.text.len());
            let after = calls(&lesson).expect("readable");
            prop_assert_eq!((after.version, after.memory_mb, after.auto_memory), (version, memory_mb, true));
            let advice = |calls: &VersionCalls| calls.last.advice(memory_mb, &Limits::default());
            prop_assert_eq!(advice(&after), advice(&before));
            prop_assert_eq!(after.last.oldest_first(), before.last.oldest_first());
        }

        #[test]
        fn whatever_lies_there_is_read_or_left(text in ".{0,200}", version in prop::option::of(0..9_u32)) {
            let lesson = Lesson { function: FUNCTION, version, text };
            prop_assert!(lesson.read().is_none());
        }
    }

    #[test]
    fn what_can_t_have_been_written_is_not_believed() {
        for text in [
            r#"{"form":2,"bins":[[3,4]],"beyond":0}"#,
            r#"{"form":1,"bins":[[96,4]],"beyond":0}"#,
            r#"{"form":1,"bins":[[3,4],[3,4]],"beyond":0}"#,
            r#"{"form":1,"bins":[[3,0]],"beyond":0}"#,
            r#"{"form":1,"bins":[[3,1000]],"beyond":4294967295}"#,
            r#"{"form":1,"bins":[[3,65535]],"beyond":0}"#,
        ] {
            let lesson = Lesson { function: FUNCTION, version: None, text: text.to_owned() };
            assert!(pauses(&lesson).is_none(), "{text}");
        }
        assert!(
            pauses(&Lesson {
                function: FUNCTION,
                version: None,
                text: r#"{"form":1,"bins":[[3,4]],"beyond":0}"#.to_owned()
            })
            .is_some()
        );
        let many =
            format!(r#"{{"form":1,"memoryMb":64,"autoMemory":false,"calls":[{}]}}"#, ["[1,1,1,1,0]"; 33].join(","));
        assert!(calls(&Lesson { function: FUNCTION, version: Some(1), text: many }).is_none());
    }
}
