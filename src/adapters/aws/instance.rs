//! The EC2 instance a node runs on: what it is told of its end by its metadata service (IMDSv2), and how it says that it is done.
//!
//! A group that ends an instance waits for a lifecycle hook. The hook is found by asking the group, so that nothing about it need
//! be configured; while it waits it is told that the node still works.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_config::imds;
use aws_config::imds::client::error::ImdsError;
use aws_config::provider_config::ProviderConfig;
use tokio::sync::OnceCell;

use crate::ports::Unavailable;
use crate::ports::clock::Clock;
use crate::ports::instance::{Instance, Notice};

use super::client::http_client;
use super::query::{Query, between};

/// The service is on this machine.
const CONNECT_MAX: Duration = Duration::from_secs(1);
const READ_MAX: Duration = Duration::from_secs(1);
/// Whoever asks asks again soon.
const TRIES_MAX: u32 = 2;
const VERSION: &str = "2011-01-01";

pub struct Ec2 {
    imds: imds::Client,
    groups: Query,
    hook: OnceCell<Option<Hook>>,
}

/// What keeps the instance alive until it is done.
struct Hook {
    group: String,
    name: String,
    instance: String,
}

fn unavailable(error: impl std::fmt::Display) -> Unavailable {
    Unavailable(error.to_string())
}

impl Ec2 {
    /// Both endpoints are found where every AWS client finds them, unless a test hands its own in.
    pub fn new(
        sdk: &SdkConfig,
        metadata: Option<&str>,
        groups: Option<&str>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Unavailable> {
        let settings = ProviderConfig::default().with_http_client(http_client());
        let mut builder = imds::Client::builder()
            .configure(&settings)
            .max_attempts(TRIES_MAX)
            .connect_timeout(CONNECT_MAX)
            .read_timeout(READ_MAX)
            .operation_timeout((CONNECT_MAX + READ_MAX) * TRIES_MAX);
        if let Some(endpoint) = metadata {
            builder = builder.endpoint(endpoint).map_err(unavailable)?;
        }
        let groups = Query::new(sdk, "autoscaling", groups, clock).map_err(Unavailable)?;
        Ok(Self { imds: builder.build(), groups, hook: OnceCell::new() })
    }

    /// `None`: there is no such thing to tell.
    async fn told(&self, path: &str) -> Result<Option<String>, Unavailable> {
        match self.imds.get(format!("/latest/meta-data/{path}")).await {
            Ok(text) => Ok(Some(text.as_ref().to_owned())),
            Err(ImdsError::ErrorResponse(answer)) if answer.response().status().as_u16() == 404 => Ok(None),
            Err(error) => Err(Unavailable(format!("ask the instance's metadata: {error}"))),
        }
    }

    /// What EC2 calls this instance.
    pub(super) async fn id(&self) -> Result<String, Unavailable> {
        self.told("instance-id").await?.ok_or_else(|| unavailable("the instance's metadata name no instance"))
    }

    /// `None`: the instance is in no group, or its group has no hook at an instance's end.
    async fn hook(&self) -> Result<Option<&Hook>, Unavailable> {
        let found = self.hook.get_or_try_init(|| async {
            let Some(instance) = self.told("instance-id").await? else { return Ok(None) };
            let of_instance = [("InstanceIds.member.1", instance.as_str())];
            let answer = self.ask("DescribeAutoScalingInstances", &of_instance).await?;
            let Some(group) = between(&answer, "AutoScalingGroupName") else { return Ok(None) };
            let hooks = self.ask("DescribeLifecycleHooks", &[("AutoScalingGroupName", group)]).await?;
            let at_end = hooks.split("<member>").find(|hook| hook.contains("autoscaling:EC2_INSTANCE_TERMINATING"));
            let Some(name) = at_end.and_then(|hook| between(hook, "LifecycleHookName")) else { return Ok(None) };
            let (group, name) = (group.to_owned(), name.to_owned());
            Ok(Some(Hook { group, name, instance }))
        });
        Ok(found.await?.as_ref())
    }

    async fn ask(&self, action: &str, parameters: &[(&str, &str)]) -> Result<String, Unavailable> {
        self.groups.ask(action, VERSION, parameters).await.map_err(Unavailable)
    }

    async fn tell(&self, action: &str, more: &[(&str, &str)]) -> Result<(), Unavailable> {
        let Some(hook) = self.hook().await? else { return Ok(()) };
        let mut parameters = vec![
            ("AutoScalingGroupName", hook.group.as_str()),
            ("LifecycleHookName", hook.name.as_str()),
            ("InstanceId", hook.instance.as_str()),
        ];
        parameters.extend(more);
        self.ask(action, &parameters).await.map(drop)
    }
}

#[async_trait]
impl Instance for Ec2 {
    async fn notice(&self) -> Result<Option<Notice>, Unavailable> {
        if self.told("spot/instance-action").await?.is_some() {
            return Ok(Some(Notice::Reclaimed));
        }
        if self.told("autoscaling/target-lifecycle-state").await?.is_some_and(|state| state.trim() == "Terminated") {
            return Ok(Some(Notice::Terminating));
        }
        Ok(self.told("events/recommendations/rebalance").await?.map(|_| Notice::Rebalance))
    }

    /// The hook waits anew from now on.
    async fn still_draining(&self) -> Result<(), Unavailable> {
        self.tell("RecordLifecycleActionHeartbeat", &[]).await
    }

    async fn done(&self) -> Result<(), Unavailable> {
        self.tell("CompleteLifecycleAction", &[("LifecycleActionResult", "CONTINUE")]).await
    }
}
