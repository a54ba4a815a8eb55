//! How much room a disk has left, and what follows of it.

/// In order: the less there is, the higher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    #[default]
    Ample,
    /// What can be had again goes.
    Low,
    /// Nothing is written that can be refused.
    Full,
}

impl Room {
    pub fn as_str(self) -> &'static str {
        match self {
            Room::Ample => "ample",
            Room::Low => "low",
            Room::Full => "full",
        }
    }
}

/// What `available` bytes are where `floor` are to stay free. To come back from `before` there must be a quarter of that more, so that
/// what is written next does not change it again.
pub fn room(available: u64, floor: u64, before: Room) -> Room {
    let bound = |of: Room, bytes: u64| if before >= of { bytes.saturating_add(floor / 4) } else { bytes };
    if available < bound(Room::Full, floor) {
        Room::Full
    } else if available < bound(Room::Low, floor.saturating_mul(2)) {
        Room::Low
    } else {
        Room::Ample
    }
}

/// How many bytes to give back, for there to be ample room.
pub fn wanted(available: u64, floor: u64) -> u64 {
    floor.saturating_mul(2).saturating_add(floor / 4).saturating_sub(available)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn room_runs_out_in_steps_and_comes_back_later() {
        for (available, before, now) in [
            (250, Room::Ample, Room::Ample),
            (200, Room::Ample, Room::Ample),
            (199, Room::Ample, Room::Low),
            (224, Room::Low, Room::Low),
            (225, Room::Low, Room::Ample),
            (100, Room::Low, Room::Low),
            (99, Room::Low, Room::Full),
            (0, Room::Ample, Room::Full),
            (124, Room::Full, Room::Full),
            (125, Room::Full, Room::Low),
            (225, Room::Full, Room::Ample),
        ] {
            assert_eq!(room(available, 100, before), now, "{available} after {before:?}");
        }
        assert_eq!(room(0, 0, Room::Ample), Room::Ample, "no floor, no end");
    }

    proptest! {
        #[test]
        fn what_is_wanted_is_enough(available: u64, floor in 0_u64..1 << 50) {
            let with = available.saturating_add(wanted(available, floor));
            for before in [Room::Ample, Room::Low, Room::Full] {
                prop_assert_eq!(room(with, floor, before), Room::Ample);
            }
        }
    }
}
