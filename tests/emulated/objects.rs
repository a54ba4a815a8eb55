//! S3: objects put on condition, got in part, copied, listed, deleted, uploaded in parts.

use std::collections::HashMap;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};

use super::place::{Fast, Place};

emulated! {
    both: [
        an_object_comes_back,
        only_the_first_put_wins,
        a_part_can_be_got,
        what_is_missing_is_said,
        objects_are_copied,
        lists_come_in_pages,
        many_are_deleted_at_once,
    ],
    // What the functional emulator does otherwise is said beside each.
    ours: [
        // It names the answer otherwise than the SDK reads it.
        an_upload_in_parts_is_one_object,
        // It answers 500 to a part of an upload that is gone.
        an_upload_can_be_given_up,
        // It holds nothing to its digest.
        damage_on_the_way_is_seen,
    ]
}

async fn bucket(place: &impl Place) -> aws_sdk_s3::Client {
    let client = place.s3();
    client.create_bucket().bucket("bucket").send().await.unwrap();
    client
}

async fn put(client: &aws_sdk_s3::Client, key: &str, bytes: &[u8]) -> Option<String> {
    let put = client.put_object().bucket("bucket").key(key).body(ByteStream::from(bytes.to_vec()));
    put.send().await.unwrap().e_tag
}

async fn got(client: &aws_sdk_s3::Client, key: &str) -> Vec<u8> {
    client.get_object().bucket("bucket").key(key).send().await.unwrap().body.collect().await.unwrap().to_vec()
}

/// The code and the status of a refusal.
fn refusal<T, E>(result: Result<T, SdkError<E>>) -> (Option<String>, u16)
where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::fmt::Debug,
{
    let Err(SdkError::ServiceError(refused)) = result else { panic!("not refused") };
    (refused.err().code().map(str::to_owned), refused.raw().status().as_u16())
}

async fn an_object_comes_back(place: &impl Place) {
    let client = bucket(place).await;
    let key = "dir/ä b+c%20&<d>.txt";
    let put = client.put_object().bucket("bucket").key(key).body(ByteStream::from_static(b"hello"));
    let put = put.content_type("text/plain").metadata("owner", "ann").send().await.unwrap();
    assert_eq!(put.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let found = client.get_object().bucket("bucket").key(key).send().await.unwrap();
    assert_eq!(
        (found.content_type(), found.content_length(), found.e_tag()),
        (Some("text/plain"), Some(5), put.e_tag())
    );
    assert_eq!(found.metadata(), Some(&HashMap::from([("owner".to_owned(), "ann".to_owned())])));
    assert!(found.last_modified().unwrap().secs() > 1_700_000_000);
    assert_eq!(found.body.collect().await.unwrap().to_vec(), b"hello");
    let head = client.head_object().bucket("bucket").key(key).send().await.unwrap();
    assert_eq!((head.content_length(), head.e_tag()), (Some(5), put.e_tag()));
    client.delete_object().bucket("bucket").key(key).send().await.unwrap();
    client.delete_object().bucket("bucket").key(key).send().await.unwrap();
    assert_eq!(refusal(client.get_object().bucket("bucket").key(key).send().await), (Some("NoSuchKey".into()), 404));
}

async fn only_the_first_put_wins(place: &impl Place) {
    let client = bucket(place).await;
    let put = |bytes: &'static [u8]| {
        let put = client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(bytes));
        put.if_none_match("*").send()
    };
    put(b"first").await.unwrap();
    assert_eq!(refusal(put(b"second").await), (Some("PreconditionFailed".into()), 412));
    assert_eq!(got(&client, "k").await, b"first");
    let wrong = client.get_object().bucket("bucket").key("k").if_match("\"0\"").send().await;
    assert_eq!(refusal(wrong).1, 412);
}

async fn a_part_can_be_got(place: &impl Place) {
    let client = bucket(place).await;
    put(&client, "k", b"0123456789").await;
    for (range, expected, said) in
        [("bytes=2-4", "234", "bytes 2-4/10"), ("bytes=7-", "789", "bytes 7-9/10"), ("bytes=-2", "89", "bytes 8-9/10")]
    {
        let part = client.get_object().bucket("bucket").key("k").range(range).send().await.unwrap();
        assert_eq!(part.content_range(), Some(said));
        assert_eq!(part.body.collect().await.unwrap().to_vec(), expected.as_bytes(), "{range}");
    }
    assert_eq!(
        refusal(client.get_object().bucket("bucket").key("k").range("bytes=10-").send().await),
        (Some("InvalidRange".into()), 416)
    );
}

async fn what_is_missing_is_said(place: &impl Place) {
    let client = bucket(place).await;
    let missing = client.get_object().bucket("bucket").key("none").send().await.unwrap_err().into_service_error();
    assert!(missing.is_no_such_key(), "{missing:?}");
    let missing = client.head_object().bucket("bucket").key("none").send().await.unwrap_err().into_service_error();
    assert!(missing.is_not_found(), "{missing:?}");
    let missing = client.get_object().bucket("no-bucket").key("k").send().await;
    assert_eq!(refusal(missing), (Some("NoSuchBucket".into()), 404));
    assert!(client.head_bucket().bucket("no-bucket").send().await.unwrap_err().into_service_error().is_not_found());
    client.head_bucket().bucket("bucket").send().await.unwrap();
}

async fn objects_are_copied(place: &impl Place) {
    let client = bucket(place).await;
    put(&client, "from it", b"content").await;
    let copy =
        |from: &str| client.copy_object().bucket("bucket").key("to").copy_source(format!("bucket/{from}")).send();
    let copied = copy("from%20it").await.unwrap();
    assert_eq!(
        copied.copy_object_result().unwrap().e_tag(),
        client.head_object().bucket("bucket").key("to").send().await.unwrap().e_tag()
    );
    assert_eq!(got(&client, "to").await, b"content");
    assert_eq!(refusal(copy("none").await).0, Some("NoSuchKey".into()));
}

async fn lists_come_in_pages(place: &impl Place) {
    let client = bucket(place).await;
    for key in ["a/1", "a/2", "a/b/3", "a&b", "c/1", "d"] {
        put(&client, key, key.as_bytes()).await;
    }
    let mut found: Vec<(String, i64)> = Vec::new();
    let mut token = None;
    loop {
        let page =
            client.list_objects_v2().bucket("bucket").max_keys(2).set_continuation_token(token).send().await.unwrap();
        found.extend(page.contents().iter().map(|object| (object.key().unwrap().to_owned(), object.size().unwrap())));
        assert_eq!(page.is_truncated(), Some(page.next_continuation_token().is_some()));
        token = page.next_continuation_token;
        if token.is_none() {
            break;
        }
    }
    let expected = [("a&b", 3), ("a/1", 3), ("a/2", 3), ("a/b/3", 5), ("c/1", 3), ("d", 1)];
    assert_eq!(found, expected.map(|(key, size)| (key.to_owned(), size)));
    let page = client.list_objects_v2().bucket("bucket").prefix("a/").delimiter("/").send().await.unwrap();
    let keys: Vec<&str> = page.contents().iter().map(|object| object.key().unwrap()).collect();
    let groups: Vec<&str> = page.common_prefixes().iter().map(|group| group.prefix().unwrap()).collect();
    assert_eq!((keys, groups), (vec!["a/1", "a/2"], vec!["a/b/"]));
    let after = client.list_objects_v2().bucket("bucket").start_after("a/b/3").send().await.unwrap();
    assert_eq!(after.key_count(), Some(2));
}

async fn many_are_deleted_at_once(place: &impl Place) {
    let client = bucket(place).await;
    for key in ["a&b", "b", "c"] {
        put(&client, key, b"x").await;
    }
    let object = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let delete = Delete::builder().objects(object("a&b")).objects(object("b")).objects(object("none")).build().unwrap();
    let deleted = client.delete_objects().bucket("bucket").delete(delete).send().await.unwrap();
    assert!(deleted.errors().is_empty());
    let left = client.list_objects_v2().bucket("bucket").send().await.unwrap();
    assert_eq!(left.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), ["c"]);
}

async fn an_upload_in_parts_is_one_object(place: &impl Place) {
    let client = bucket(place).await;
    let upload = client.create_multipart_upload().bucket("bucket").key("k").content_type("a/b").send().await.unwrap();
    let upload = upload.upload_id.unwrap();
    let parts = [vec![1u8; 5 << 20], vec![2u8; 10]];
    let mut done = CompletedMultipartUpload::builder();
    for (number, bytes) in (1..).zip(&parts) {
        let part = client.upload_part().bucket("bucket").key("k").upload_id(&upload).part_number(number);
        let part = part.body(ByteStream::from(bytes.clone())).send().await.unwrap();
        done = done.parts(CompletedPart::builder().part_number(number).e_tag(part.e_tag.unwrap()).build());
    }
    assert_eq!(refusal(client.get_object().bucket("bucket").key("k").send().await).0, Some("NoSuchKey".into()));
    let complete =
        client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&upload).multipart_upload(done.build());
    let complete = complete.send().await.unwrap();
    assert!(complete.e_tag().unwrap().ends_with("-2\""), "{complete:?}");
    assert_eq!(got(&client, "k").await, parts.concat());
    let head = client.head_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!((head.e_tag(), head.content_type()), (complete.e_tag(), Some("a/b")));
}

async fn an_upload_can_be_given_up(place: &impl Place) {
    let client = bucket(place).await;
    let upload = client.create_multipart_upload().bucket("bucket").key("k").send().await.unwrap().upload_id.unwrap();
    let listed = client.list_multipart_uploads().bucket("bucket").send().await.unwrap();
    assert_eq!(listed.uploads().iter().map(|listed| listed.upload_id().unwrap()).collect::<Vec<_>>(), [&upload]);
    client.abort_multipart_upload().bucket("bucket").key("k").upload_id(&upload).send().await.unwrap();
    let part = client
        .upload_part()
        .bucket("bucket")
        .key("k")
        .upload_id(&upload)
        .part_number(1)
        .body(ByteStream::from_static(b"x"));
    assert_eq!(refusal(part.send().await), (Some("NoSuchUpload".into()), 404));
}

async fn damage_on_the_way_is_seen(place: &impl Place) {
    let client = bucket(place).await;
    let put = client
        .put_object()
        .bucket("bucket")
        .key("k")
        .body(ByteStream::from_static(b"x"))
        .content_md5("AAAAAAAAAAAAAAAAAAAAAA==");
    assert_eq!(refusal(put.send().await), (Some("BadDigest".into()), 400));
    assert_eq!(client.list_objects_v2().bucket("bucket").send().await.unwrap().key_count(), Some(0));
}

#[tokio::test]
async fn an_upload_keeps_its_rules() {
    let place = Fast::start().await;
    let client = bucket(&place).await;
    let upload = client.create_multipart_upload().bucket("bucket").key("k").send().await.unwrap().upload_id.unwrap();
    let mut parts = Vec::new();
    for number in 1..=2 {
        let part = client.upload_part().bucket("bucket").key("k").upload_id(&upload).part_number(number);
        let etag = part.body(ByteStream::from_static(b"small")).send().await.unwrap().e_tag.unwrap();
        parts.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
    }
    let complete = |parts: Vec<CompletedPart>| {
        let done = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete =
            client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&upload).multipart_upload(done);
        complete.if_none_match("*").send()
    };
    assert_eq!(refusal(complete(parts.clone()).await).0, Some("EntityTooSmall".into()));
    assert_eq!(refusal(complete(parts.iter().rev().cloned().collect()).await).0, Some("InvalidPartOrder".into()));
    let wrong = CompletedPart::builder().part_number(1).e_tag("\"0\"").build();
    assert_eq!(refusal(complete(vec![wrong]).await).0, Some("InvalidPart".into()));
    put(&client, "k", b"other").await;
    assert_eq!(refusal(complete(parts[1..].to_vec()).await), (Some("PreconditionFailed".into()), 412));
    place.s3.damage("bucket", "k");
    assert_eq!(got(&client, "k").await, b"nther");
}
