//! Lists: of buckets, of a bucket's objects, of its unfinished uploads.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

use super::objects::Bucket;
use super::refusal::{Answer, Refusal};
use super::{Call, xml};

/// Entries of one page.
const PAGE_MAX: usize = 1000;

pub fn buckets(buckets: &BTreeMap<String, Bucket>) -> Response<Full<Bytes>> {
    let names = buckets.keys().map(|name| xml::element("Bucket", &xml::element("Name", name)));
    let list = xml::element("Buckets", &names.collect::<String>());
    xml::response(&xml::element("ListAllMyBucketsResult", &list))
}

impl Bucket {
    /// ListObjectsV2. A token is the last key or common prefix of the page before, in hexadecimal.
    pub fn list(&self, call: &Call<'_>) -> Answer {
        let prefix = call.asks("prefix").unwrap_or_default();
        let delimiter = call.asks("delimiter").filter(|text| !text.is_empty());
        let page_max = match call.asks("max-keys").map(str::parse::<usize>) {
            None => PAGE_MAX,
            Some(Ok(count)) => count.min(PAGE_MAX),
            Some(Err(_)) => return Err(Refusal::invalid("Provided max-keys not an integer or within integer range")),
        };
        let after = match call.asks("continuation-token") {
            Some(token) => {
                let token = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                token.ok_or_else(|| Refusal::invalid("The continuation token provided is incorrect"))?
            }
            None => call.asks("start-after").unwrap_or_default().to_owned(),
        };
        let common = |key: &str| {
            let delimiter = delimiter?;
            let end = key[prefix.len()..].find(delimiter)? + prefix.len() + delimiter.len();
            Some(key[..end].to_owned())
        };
        let mut entries = String::new();
        let mut last = String::new();
        let (mut count, mut is_cut) = (0, false);
        let from = if after.as_str() < prefix { Bound::Included(prefix) } else { Bound::Excluded(after.as_str()) };
        for (key, object) in
            self.objects.range::<str, _>((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix))
        {
            let group = common(key);
            if group.as_ref().is_some_and(|group| *group == last || *group == after) {
                continue;
            }
            if count == page_max {
                is_cut = true;
                break;
            }
            count += 1;
            entries += &match &group {
                Some(group) => xml::element("CommonPrefixes", &xml::element("Prefix", &xml::escaped(group))),
                None => {
                    let modified = humantime::format_rfc3339_millis(object.modified).to_string();
                    let fields = [
                        ("Key", xml::escaped(key)),
                        ("LastModified", modified),
                        ("ETag", xml::escaped(&object.etag)),
                        ("Size", object.bytes.len().to_string()),
                        ("StorageClass", "STANDARD".to_owned()),
                    ];
                    let fields: String = fields.iter().map(|(name, text)| xml::element(name, text)).collect();
                    xml::element("Contents", &fields)
                }
            };
            last = group.unwrap_or_else(|| key.clone());
        }
        let mut fields = [
            ("Name", xml::escaped(&call.bucket)),
            ("Prefix", xml::escaped(prefix)),
            ("KeyCount", count.to_string()),
            ("MaxKeys", page_max.to_string()),
            ("IsTruncated", is_cut.to_string()),
        ]
        .map(|(name, text)| xml::element(name, &text))
        .concat();
        if is_cut {
            fields += &xml::element("NextContinuationToken", &hex::encode(&last));
        }
        Ok(xml::response(&xml::element("ListBucketResult", &(fields + &entries))))
    }

    pub fn list_uploads(&self, call: &Call<'_>) -> Response<Full<Bytes>> {
        let uploads = self.uploads.iter().map(|(id, upload)| {
            let fields = [
                ("Key", xml::escaped(&upload.key)),
                ("UploadId", id.clone()),
                ("Initiated", humantime::format_rfc3339_millis(upload.begun).to_string()),
            ];
            xml::element("Upload", &fields.map(|(name, text)| xml::element(name, &text)).concat())
        });
        let fields = xml::element("Bucket", &xml::escaped(&call.bucket)) + &xml::element("IsTruncated", "false");
        xml::response(&xml::element("ListMultipartUploadsResult", &(fields + &uploads.collect::<String>())))
    }
}
