//! Cursors: the place after a page's last item, in letters that nobody should read.
//!
//! A cursor that none of these wrote is refused with `StoreError::InvalidCursor`: to start from the top instead would make a
//! caller that follows pages go round for ever.

use crate::ports::StoreError;

const INVALID: StoreError = StoreError::InvalidCursor;

/// The place after a row number, in a list from high to low.
pub(super) fn encode_below(row: i64) -> String {
    format!("{row:x}")
}

/// `None` begins at the top.
pub(super) fn decode_below(cursor: Option<&str>) -> Result<i64, StoreError> {
    let Some(cursor) = cursor else { return Ok(i64::MAX) };
    match i64::from_str_radix(cursor, 16) {
        Ok(row) if encode_below(row) == cursor => Ok(row),
        _ => Err(INVALID),
    }
}

/// The place after a name and an id, in a list in their order.
pub(super) fn encode_after(name: &str, id: [u8; 16]) -> String {
    hex::encode([id.as_slice(), name.as_bytes()].concat())
}

/// `None` begins at the first.
pub(super) fn decode_after(cursor: Option<&str>) -> Result<(String, [u8; 16]), StoreError> {
    let Some(cursor) = cursor else { return Ok(Default::default()) };
    let bytes = hex::decode(cursor).map_err(|_| INVALID)?;
    let (id, name) = bytes.split_first_chunk::<16>().ok_or(INVALID)?;
    Ok((String::from_utf8(name.to_vec()).map_err(|_| INVALID)?, *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_what_it_writes() {
        for row in [0, 1, 1 << 60, i64::MAX] {
            assert_eq!(decode_below(Some(&encode_below(row))).unwrap(), row);
        }
        let place = ("hello-world".to_owned(), [7; 16]);
        assert_eq!(decode_after(Some(&encode_after(&place.0, place.1))).unwrap(), place);
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in ["", "xyz", "+1", "0x1", "00ff", "'; drop table records"] {
            assert!(matches!(decode_below(Some(garbage)), Err(StoreError::InvalidCursor)), "{garbage}");
        }
        for garbage in ["", "zz", "abcd", &"ff".repeat(20)] {
            assert!(matches!(decode_after(Some(garbage)), Err(StoreError::InvalidCursor)), "{garbage}");
        }
    }
}
