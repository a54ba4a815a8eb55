//! Objects of a bucket: put, got, copied, deleted.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use md5::{Digest as _, Md5};

use super::refusal::{Answer, Refusal, empty};
use super::uploads::Upload;
use super::{Call, decoded, xml};

/// Keys of one DeleteObjects.
const DELETED_MAX: usize = 1000;

#[derive(Clone)]
pub struct Object {
    pub bytes: Bytes,
    /// In quotes.
    pub etag: String,
    pub modified: SystemTime,
    /// Type, encodings and the user's own.
    pub headers: Vec<(String, String)>,
}

#[derive(Default)]
pub struct Bucket {
    pub objects: BTreeMap<String, Object>,
    pub uploads: BTreeMap<String, Upload>,
    pub uploads_begun: u64,
}

/// The headers of a request that an object keeps.
pub fn kept_headers(call: &Call<'_>) -> Vec<(String, String)> {
    let kept = |name: &str| {
        let plain = ["content-type", "cache-control", "content-disposition", "content-language", "expires"];
        plain.contains(&name) || name.starts_with("x-amz-meta-")
    };
    let headers = call.headers.iter().filter(|(name, _)| kept(name.as_str()));
    headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect()
}

impl Object {
    pub fn new(bytes: Bytes, headers: Vec<(String, String)>) -> Self {
        let etag = format!("\"{}\"", hex::encode(Md5::digest(&bytes)));
        Self { bytes, etag, modified: SystemTime::now(), headers }
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT`, from `1994-11-06T08:49:37Z`.
    fn modified_header(&self) -> String {
        let text = humantime::format_rfc3339_seconds(self.modified).to_string();
        let days = self.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
        // The epoch was a Thursday.
        let day_name = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = months[text[5..7].parse::<usize>().unwrap() - 1];
        format!("{day_name}, {} {month} {} {} GMT", &text[8..10], &text[..4], &text[11..19])
    }
}

/// Whether an `If-…` header names an object's tag.
fn names(header: &str, etag: &str) -> bool {
    header == "*" || header.split(',').any(|tag| tag.trim().trim_matches('"') == etag.trim_matches('"'))
}

impl Bucket {
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn damage(&mut self, key: &str) {
        let object = self.objects.get_mut(key).unwrap();
        let mut bytes = object.bytes.to_vec();
        bytes[0] ^= 1;
        object.bytes = bytes.into();
    }

    /// The conditions of a write.
    pub fn may_write(&self, call: &Call<'_>, key: &str) -> Result<(), Refusal> {
        let present = self.objects.get(key);
        match (call.header("if-none-match"), call.header("if-match"), present) {
            (Some("*"), _, Some(_)) => Err(Refusal::precondition()),
            (Some(other), ..) if other != "*" => Err(Refusal::not_implemented()),
            (_, Some(_), None) => Err(Refusal::no_key()),
            (_, Some(tag), Some(object)) if !names(tag, &object.etag) => Err(Refusal::precondition()),
            _ => Ok(()),
        }
    }

    pub fn put(&mut self, call: &Call<'_>) -> Answer {
        self.may_write(call, &call.key)?;
        let object = Object::new(call.body.clone(), kept_headers(call));
        let response = Response::builder().header("etag", &object.etag).body(Full::default()).unwrap();
        self.objects.insert(call.key.clone(), object);
        Ok(response)
    }

    /// GET and HEAD: of the latter the body is left away below.
    pub fn get(&self, call: &Call<'_>) -> Answer {
        let object = self.objects.get(&call.key).ok_or_else(Refusal::no_key)?;
        if call.header("if-match").is_some_and(|tag| !names(tag, &object.etag)) {
            return Err(Refusal::precondition());
        }
        if call.header("if-none-match").is_some_and(|tag| names(tag, &object.etag)) {
            return Err(Refusal::new(304, "NotModified", ""));
        }
        let size = object.bytes.len();
        let mut response = Response::builder()
            .header("etag", &object.etag)
            .header("last-modified", object.modified_header())
            .header("accept-ranges", "bytes");
        for (name, value) in &object.headers {
            response = response.header(name, value);
        }
        let bytes = match call.header("range").and_then(|range| range.strip_prefix("bytes=")) {
            Some(range) => {
                let unsatisfiable = Refusal::new(416, "InvalidRange", "The requested range is not satisfiable");
                let (from, to) = part(range, size).ok_or(unsatisfiable)?;
                response = response.status(206).header("content-range", format!("bytes {from}-{}/{size}", to - 1));
                object.bytes.slice(from..to)
            }
            None => object.bytes.clone(),
        };
        Ok(response.body(Full::new(bytes)).unwrap())
    }

    pub fn delete(&mut self, call: &Call<'_>) -> Response<Full<Bytes>> {
        self.objects.remove(&call.key);
        empty(204)
    }

    pub fn delete_many(&mut self, call: &Call<'_>) -> Answer {
        let malformed = || Refusal::new(400, "MalformedXML", "The XML you provided was not well-formed");
        let request = std::str::from_utf8(&call.body).map_err(|_| malformed())?;
        let objects = xml::each(request, "Object");
        if objects.is_empty() || objects.len() > DELETED_MAX {
            return Err(malformed());
        }
        let quiet = xml::text(request, "Quiet").as_deref() == Some("true");
        let mut deleted = String::new();
        for object in objects {
            let key = xml::text(object, "Key").ok_or_else(malformed)?;
            self.objects.remove(&key);
            if !quiet {
                deleted += &xml::element("Deleted", &xml::element("Key", &xml::escaped(&key)));
            }
        }
        Ok(xml::response(&xml::element("DeleteResult", &deleted)))
    }
}

pub fn copy(buckets: &mut BTreeMap<String, Bucket>, call: &Call<'_>) -> Answer {
    let source = decoded(call.header("x-amz-copy-source").unwrap_or_default(), false);
    let source = source.split('?').next().unwrap_or_default().trim_start_matches('/');
    let (from, key) =
        source.split_once('/').ok_or_else(|| Refusal::invalid("Copy Source must mention the source bucket and key"))?;
    let no_bucket = || Refusal::new(404, "NoSuchBucket", "The specified bucket does not exist");
    let object = buckets.get(from).ok_or_else(no_bucket)?.objects.get(key).ok_or_else(Refusal::no_key)?.clone();
    if call.header("x-amz-copy-source-if-match").is_some_and(|tag| !names(tag, &object.etag)) {
        return Err(Refusal::precondition());
    }
    let replaces = call.header("x-amz-metadata-directive") == Some("REPLACE");
    if from == call.bucket && key == call.key && !replaces {
        let message =
            "This copy request is illegal because it is trying to copy an object to itself without changing it.";
        return Err(Refusal::new(400, "InvalidRequest", message));
    }
    let bucket = buckets.get_mut(&call.bucket).ok_or_else(no_bucket)?;
    bucket.may_write(call, &call.key)?;
    let headers = if replaces { kept_headers(call) } else { object.headers };
    let copied = Object { headers, modified: SystemTime::now(), ..object };
    let fields = xml::element("LastModified", &humantime::format_rfc3339_millis(copied.modified).to_string())
        + &xml::element("ETag", &xml::escaped(&copied.etag));
    bucket.objects.insert(call.key.clone(), copied);
    Ok(xml::response(&xml::element("CopyObjectResult", &fields)))
}

/// `3-7`, `3-` or `-3` of that many bytes: from the first to before the last.
fn part(range: &str, size: usize) -> Option<(usize, usize)> {
    let (from, to) = range.split_once('-')?;
    let (from, to) = match (from.parse::<usize>().ok(), to.parse::<usize>().ok()) {
        (Some(from), Some(to)) if from <= to => (from, to.saturating_add(1).min(size)),
        (Some(from), None) if to.is_empty() => (from, size),
        (None, Some(last)) if from.is_empty() && last > 0 => (size.saturating_sub(last), size),
        _ => return None,
    };
    (from < to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("0-0", Some((0, 1))),
            ("3-", Some((3, 10))),
            ("-3", Some((7, 10))),
            ("-30", Some((0, 10))),
            ("5-99", Some((5, 10))),
            ("10-", None),
            ("7-3", None),
            ("-0", None),
            ("-", None),
            ("a-b", None),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn a_date_as_http_has_it() {
        let mut object = Object::new(Bytes::new(), Vec::new());
        object.modified = UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
        assert_eq!(object.modified_header(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
