//! Uploads in parts: begun, their parts put, completed to an object or given up.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::Full;
use md5::{Digest as _, Md5};

use super::objects::{Bucket, Object, kept_headers};
use super::refusal::{Answer, Refusal, empty};
use super::{Call, xml};

/// Bytes that each part but the last has at least.
const PART_BYTES_MIN: usize = 5 << 20;
const PARTS_MAX: u32 = 10_000;

pub struct Upload {
    pub key: String,
    pub begun: SystemTime,
    headers: Vec<(String, String)>,
    parts: BTreeMap<u32, Object>,
}

fn no_upload() -> Refusal {
    Refusal::new(404, "NoSuchUpload", "The specified upload does not exist. It may have been aborted or completed.")
}

impl Bucket {
    pub fn begin_upload(&mut self, call: &Call<'_>) -> Response<Full<Bytes>> {
        self.uploads_begun += 1;
        let id = format!("upload-{}", self.uploads_begun);
        let fields = [("Bucket", &call.bucket), ("Key", &call.key), ("UploadId", &id)];
        let fields = fields.map(|(name, text)| xml::element(name, &xml::escaped(text))).concat();
        let (headers, parts) = (kept_headers(call), BTreeMap::new());
        self.uploads.insert(id, Upload { key: call.key.clone(), begun: SystemTime::now(), headers, parts });
        xml::response(&xml::element("InitiateMultipartUploadResult", &fields))
    }

    fn upload_id(&self, call: &Call<'_>) -> Result<String, Refusal> {
        let id = call.asks("uploadId").unwrap_or_default();
        match self.uploads.get(id) {
            Some(upload) if upload.key == call.key => Ok(id.to_owned()),
            _ => Err(no_upload()),
        }
    }

    pub fn put_part(&mut self, call: &Call<'_>) -> Answer {
        let id = self.upload_id(call)?;
        let number = call.asks("partNumber").and_then(|text| text.parse().ok()).filter(|n| (1..=PARTS_MAX).contains(n));
        let number =
            number.ok_or_else(|| Refusal::invalid("Part number must be an integer between 1 and 10000, inclusive"))?;
        let part = Object::new(call.body.clone(), Vec::new());
        let response = Response::builder().header("etag", &part.etag).body(Full::default()).unwrap();
        self.uploads.get_mut(&id).ok_or_else(no_upload)?.parts.insert(number, part);
        Ok(response)
    }

    pub fn complete_upload(&mut self, call: &Call<'_>) -> Answer {
        let id = self.upload_id(call)?;
        self.may_write(call, &call.key)?;
        let upload = self.uploads.get(&id).ok_or_else(no_upload)?;
        let invalid = || Refusal::new(400, "InvalidPart", "One or more of the specified parts could not be found.");
        let request = std::str::from_utf8(&call.body).map_err(|_| invalid())?;
        let mut named = Vec::new();
        for part in xml::each(request, "Part") {
            let number: u32 = xml::text(part, "PartNumber").and_then(|text| text.parse().ok()).ok_or_else(invalid)?;
            let etag = xml::text(part, "ETag").ok_or_else(invalid)?;
            let held = upload.parts.get(&number).filter(|held| held.etag.trim_matches('"') == etag.trim_matches('"'));
            named.push((number, held.ok_or_else(invalid)?));
        }
        if named.is_empty() {
            return Err(Refusal::new(400, "MalformedXML", "The XML you provided was not well-formed"));
        }
        if !named.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(Refusal::new(400, "InvalidPartOrder", "The list of parts was not in ascending order."));
        }
        if named[..named.len() - 1].iter().any(|(_, part)| part.bytes.len() < PART_BYTES_MIN) {
            let message = "Your proposed upload is smaller than the minimum allowed size";
            return Err(Refusal::new(400, "EntityTooSmall", message));
        }
        let mut bytes = BytesMut::with_capacity(named.iter().map(|(_, part)| part.bytes.len()).sum());
        let mut digests = Md5::new();
        for (_, part) in &named {
            bytes.extend_from_slice(&part.bytes);
            digests.update(Md5::digest(&part.bytes));
        }
        let etag = format!("\"{}-{}\"", hex::encode(digests.finalize()), named.len());
        let object =
            Object { bytes: bytes.freeze(), etag, modified: SystemTime::now(), headers: upload.headers.clone() };
        let fields = [("Bucket", &call.bucket), ("Key", &call.key), ("ETag", &object.etag)];
        let fields = fields.map(|(name, text)| xml::element(name, &xml::escaped(text))).concat();
        self.objects.insert(call.key.clone(), object);
        self.uploads.remove(&id);
        Ok(xml::response(&xml::element("CompleteMultipartUploadResult", &fields)))
    }

    pub fn abort_upload(&mut self, call: &Call<'_>) -> Answer {
        let id = self.upload_id(call)?;
        self.uploads.remove(&id);
        Ok(empty(204))
    }
}
