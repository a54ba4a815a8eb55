//! What a fleet is told beside its store: the scaling figure, the log of records, and what becomes of an instance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use faasd::adapters::aws::cloudwatch::CloudWatch;
use faasd::adapters::aws::instance::Ec2;
use faasd::adapters::aws::logs::CloudWatchLogs;
use faasd::adapters::system_clock::SystemClock;
use faasd::domain::outcome::Status;
use faasd::ports::instance::{Instance, Notice};
use faasd::ports::record_log::RecordLog;
use faasd::ports::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::samples;
use super::sqs::sdk;
use crate::support::imds::{INSTANCE, Imds};
use crate::support::moto::Moto;

/// The emulator's answer to a query of its metrics.
async fn metrics(query: &str) -> String {
    let endpoint = Moto::parallel().endpoint.clone();
    let host = endpoint.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=test/20261122/eu-central-1/monitoring/aws4_request, SignedHeaders=host, \
         Signature=none\r\ncontent-length: {}\r\n\r\n{query}",
        query.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scaling_figure_is_one_metric() {
    let (sdk, namespace) = (Moto::parallel().sdk().await, format!("fleet-{}", Uuid::new_v4()));
    let clock = Arc::new(SystemClock::new());
    let signal = CloudWatch::new(&sdk, &namespace, clock.clone()).unwrap();
    for figure in [0.25, 0.75] {
        signal.publish(figure).await.unwrap();
    }
    let times = "StartTime=2026-01-01T00:00:00Z&EndTime=2100-01-01T00:00:00Z&Period=2592000";
    let statistics = "Statistics.member.1=Sum&Statistics.member.2=SampleCount";
    let answer = metrics(&format!(
        "Action=GetMetricStatistics&Version=2010-08-01&Namespace={namespace}&MetricName=WorkPerWorker&{times}&{statistics}"
    ))
    .await;
    let sum_of = |name: &str| -> f64 {
        let texts = answer.split(&format!("<{name}>")).skip(1).filter_map(|rest| rest.split('<').next());
        texts.map(|text| text.parse::<f64>().unwrap()).sum()
    };
    assert_eq!((sum_of("SampleCount"), sum_of("Sum")), (2.0, 1.0), "{answer}");
    let gone = CloudWatch::new(&self::sdk("http://127.0.0.1:9").await, &namespace, clock).unwrap().publish(1.0).await;
    assert!(gone.is_err());
}

fn dropped(metrics: &prometheus::Registry, reason: &str) -> f64 {
    let families = metrics.gather();
    let family = families.iter().find(|family| family.name() == "faasd_record_log_dropped_total");
    let of_reason = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == reason;
    family
        .and_then(|family| family.get_metric().iter().find(of_reason))
        .map_or(0.0, |metric| metric.get_counter().get_value())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn final_records_come_to_a_stream_that_is_made_for_them() {
    let (sdk, group) = (Moto::parallel().sdk().await, format!("/faasd/{}", Uuid::new_v4()));
    let client = aws_sdk_cloudwatchlogs::Client::new(&sdk);
    client.create_log_group().log_group_name(&group).send().await.unwrap();
    let metrics = prometheus::Registry::new();
    let log = CloudWatchLogs::start(&sdk, &group, "node:1", Arc::new(SystemClock::new()), &metrics).unwrap();
    let records: Vec<_> = (0..50).map(|_| samples::finished("ann", Status::Success)).collect();
    for record in &records {
        log.append(record.clone());
    }
    // Too much for an event: it goes without what was printed.
    let mut large = samples::finished("ann", Status::Failed);
    Arc::get_mut(&mut large).unwrap().record.stdout = "x".repeat(300 << 10);
    log.append(large.clone());
    log.close(Duration::from_secs(20)).await;
    let answer = client.get_log_events().log_group_name(&group).log_stream_name("node-1").send().await.unwrap();
    let events: Vec<serde_json::Value> =
        answer.events().iter().map(|event| serde_json::from_str(event.message().unwrap()).unwrap()).collect();
    let ids: Vec<_> = events.iter().map(|event| event["requestId"].as_str().unwrap().to_owned()).collect();
    let wanted: Vec<_> = records.iter().chain([&large]).map(|one| one.record.request_id.to_string()).collect();
    assert_eq!(ids, wanted);
    assert_eq!((&events[0]["stdout"], &events[50]["stdout"]), (&"printed\n".into(), &"".into()));
    for reason in ["full", "too_large", "failed", "rejected"] {
        assert_eq!(dropped(&metrics, reason), 0.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_beyond_what_may_wait_are_dropped_counted_and_hold_nobody_up() {
    // A port where nobody answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sdk = sdk(&format!("http://{}", silent.local_addr().unwrap())).await;
    let metrics = prometheus::Registry::new();
    let log = CloudWatchLogs::start(&sdk, "group", "stream", Arc::new(SystemClock::new()), &metrics).unwrap();
    let mut large = samples::finished("ann", Status::Success);
    Arc::get_mut(&mut large).unwrap().record.stdout = "x".repeat(1 << 20);
    let began = Instant::now();
    for _ in 0..200 {
        log.append(large.clone());
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    let full = dropped(&metrics, "full");
    assert!((100.0..200.0).contains(&full), "{full} of 200 MiB dropped");
    log.close(Duration::from_millis(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gravest_notice_is_told() {
    let imds = Imds::start().await;
    let endpoint = Some(imds.endpoint());
    let instance = Ec2::new(&sdk(imds.endpoint()).await, endpoint, endpoint, Arc::new(SystemClock::new())).unwrap();
    assert_eq!(instance.notice().await.unwrap(), None);
    imds.tell("autoscaling/target-lifecycle-state", "InService");
    assert_eq!(instance.notice().await.unwrap(), None);
    imds.tell("events/recommendations/rebalance", "{\"noticeTime\":\"2026-11-22T08:22:00Z\"}");
    assert_eq!(instance.notice().await.unwrap(), Some(Notice::Rebalance));
    imds.tell("autoscaling/target-lifecycle-state", "Terminated");
    assert_eq!(instance.notice().await.unwrap(), Some(Notice::Terminating));
    imds.tell("spot/instance-action", "{\"action\":\"terminate\",\"time\":\"2026-11-22T08:22:00Z\"}");
    assert_eq!(instance.notice().await.unwrap(), Some(Notice::Reclaimed));
    imds.take_back("spot/instance-action");
    assert_eq!(instance.notice().await.unwrap(), Some(Notice::Terminating));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_is_told_when_its_instance_is_done() {
    let imds = Imds::start().await;
    let endpoint = Some(imds.endpoint());
    let instance = Ec2::new(&sdk(imds.endpoint()).await, endpoint, endpoint, Arc::new(SystemClock::new())).unwrap();
    instance.still_draining().await.unwrap();
    instance.done().await.unwrap();
    let of_hook = format!("&AutoScalingGroupName=workers&LifecycleHookName=drain&InstanceId={INSTANCE}");
    assert_eq!(
        imds.requests(),
        [
            format!("Action=DescribeAutoScalingInstances&Version=2011-01-01&InstanceIds.member.1={INSTANCE}"),
            "Action=DescribeLifecycleHooks&Version=2011-01-01&AutoScalingGroupName=workers".to_owned(),
            format!("Action=RecordLifecycleActionHeartbeat&Version=2011-01-01{of_hook}"),
            format!("Action=CompleteLifecycleAction&Version=2011-01-01{of_hook}&LifecycleActionResult=CONTINUE"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_of_no_group_is_done_without_telling_anybody() {
    let imds = Imds::start().await;
    imds.leave_group();
    let endpoint = Some(imds.endpoint());
    let instance = Ec2::new(&sdk(imds.endpoint()).await, endpoint, endpoint, Arc::new(SystemClock::new())).unwrap();
    instance.done().await.unwrap();
    assert_eq!(imds.requests().len(), 1);
    let nowhere = Some("http://127.0.0.1:9");
    let alone = Ec2::new(&sdk("http://127.0.0.1:9").await, nowhere, nowhere, Arc::new(SystemClock::new())).unwrap();
    assert!(alone.notice().await.is_err());
}
