//! The fleet's address as an Elastic IP, which its holder associates with its own instance.

use std::sync::Arc;

use async_trait::async_trait;
use aws_config::SdkConfig;
use tokio::sync::OnceCell;

use crate::ports::Unavailable;
use crate::ports::address::{Address, Place};
use crate::ports::clock::Clock;

use super::instance::Ec2;
use super::query::{Query, between};

const VERSION: &str = "2016-11-15";

pub struct ElasticIp {
    addresses: Query,
    allocation: String,
    instance: Arc<Ec2>,
    /// This instance's id.
    own: OnceCell<String>,
}

impl ElasticIp {
    pub fn new(
        sdk: &SdkConfig,
        allocation: &str,
        instance: Arc<Ec2>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Unavailable> {
        let addresses = Query::new(sdk, "ec2", None, clock).map_err(Unavailable)?;
        Ok(Self { addresses, allocation: allocation.to_owned(), instance, own: OnceCell::new() })
    }

    async fn own(&self) -> Result<&str, Unavailable> {
        self.own.get_or_try_init(|| self.instance.id()).await.map(String::as_str)
    }

    async fn ask(&self, action: &str, parameters: &[(&str, &str)]) -> Result<String, Unavailable> {
        self.addresses.ask(action, VERSION, parameters).await.map_err(Unavailable)
    }
}

/// Where DescribeAddresses says that the one address is.
fn place(answer: &str, own: &str) -> Place {
    match between(answer, "instanceId").filter(|id| !id.is_empty()) {
        Some(id) if id == own => Place::Here,
        Some(_) => Place::Elsewhere,
        // At an interface that is no instance's.
        None if between(answer, "networkInterfaceId").is_some_and(|id| !id.is_empty()) => Place::Elsewhere,
        None => Place::Nowhere,
    }
}

#[async_trait]
impl Address for ElasticIp {
    async fn place(&self) -> Result<Place, Unavailable> {
        let own = self.own().await?;
        let answer = self.ask("DescribeAddresses", &[("AllocationId.1", &self.allocation)]).await?;
        Ok(place(&answer, own))
    }

    async fn take(&self, from: Place) -> Result<(), Unavailable> {
        let own = self.own().await?;
        // Refused by EC2 where it is somebody's by now.
        let may_move = if from == Place::Nowhere { "false" } else { "true" };
        let parameters =
            [("AllocationId", self.allocation.as_str()), ("InstanceId", own), ("AllowReassociation", may_move)];
        self.ask("AssociateAddress", &parameters).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_here_elsewhere_or_nowhere() {
        for (item, where_) in [
            ("<instanceId>i-1</instanceId><networkInterfaceId>eni-1</networkInterfaceId>", Place::Here),
            ("<instanceId>i-2</instanceId>", Place::Elsewhere),
            ("<instanceId></instanceId><networkInterfaceId>eni-1</networkInterfaceId>", Place::Elsewhere),
            ("<networkInterfaceId>eni-1</networkInterfaceId>", Place::Elsewhere),
            ("<instanceId/>", Place::Nowhere),
            ("", Place::Nowhere),
        ] {
            assert_eq!(place(&format!("<item>{item}</item>"), "i-1"), where_, "{item}");
        }
    }
}
