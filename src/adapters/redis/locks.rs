//! Locks: a hash with the holder and its fence, which expires, and the last fence of each lock, which does not.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use fred::types::Key;
use fred::types::scripts::Script;

use crate::ports::Unavailable;
use crate::ports::locks::{Fence, Locks};

use super::commands::Commands;

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/acquire.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/release.lua")));

pub(super) struct RedisLocks {
    prefix: Arc<str>,
    commands: Commands,
}

impl RedisLocks {
    pub fn new(prefix: Arc<str>, commands: Commands) -> Self {
        Self { prefix, commands }
    }

    fn key(&self, name: &str) -> String {
        format!("{{{}:lock:{name}}}", self.prefix)
    }
}

#[async_trait]
impl Locks for RedisLocks {
    async fn acquire(&self, name: &str, holder: &str, valid_for: Duration) -> Result<Option<Fence>, Unavailable> {
        let key = self.key(name);
        let keys: Vec<Key> = vec![key.clone().into(), format!("{key}:fence").into()];
        let valid_ms = i64::try_from(valid_for.as_millis()).unwrap_or(i64::MAX).max(1);
        let arguments = vec![holder.into(), valid_ms.into()];
        let fence: Option<u64> = self.commands.script("acquire", &ACQUIRE, keys, arguments).await?;
        Ok(fence.map(Fence))
    }

    async fn release(&self, name: &str, holder: &str) -> Result<(), Unavailable> {
        let keys = vec![self.key(name).into()];
        self.commands.script::<i64>("release", &RELEASE, keys, vec![holder.into()]).await.map(drop)
    }
}
