//! Buckets: a hash for each identity that is not at its full burst, and one of the nodes that draw.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use fred::types::scripts::Script;
use uuid::Uuid;

use crate::domain::rate::{Drawn, Rate};
use crate::ports::Unavailable;
use crate::ports::buckets::{Buckets, Identity, SHARES_FOR};

use super::commands::Commands;

static DRAW: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/draw.lua")));
static SHARERS: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/sharers.lua")));

pub(super) struct RedisBuckets {
    prefix: Arc<str>,
    /// This node, among those that share.
    node: Uuid,
    commands: Commands,
}

impl RedisBuckets {
    pub fn new(prefix: Arc<str>, node: Uuid, commands: Commands) -> Self {
        Self { prefix, node, commands }
    }
}

#[async_trait]
impl Buckets for RedisBuckets {
    async fn draw(&self, identity: &Identity, rate: Rate, want: u32) -> Result<Drawn, Unavailable> {
        let key = format!("{{{}:bucket:{}}}", self.prefix, hex::encode(identity));
        let arguments = [rate.per_second.max(1), rate.burst.max(1), want].map(|number| i64::from(number).into());
        let (tokens, remaining, full_us, next_us): (u32, u32, u64, u64) =
            self.commands.script("draw", &DRAW, vec![key.into()], arguments.to_vec()).await?;
        Ok(Drawn {
            tokens,
            remaining,
            full_in: Duration::from_micros(full_us),
            next_in: Duration::from_micros(next_us),
        })
    }

    async fn sharers(&self) -> Result<u32, Unavailable> {
        let keys = vec![format!("{{{}:sharers}}", self.prefix).into()];
        let arguments = vec![self.node.to_string().into(), (SHARES_FOR.as_millis() as i64).into()];
        self.commands.script("sharers", &SHARERS, keys, arguments).await
    }
}
