//! Claims: a list for each version, and until when each worker's entries are good.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::Key;
use fred::types::scripts::Script;
use uuid::Uuid;

use crate::domain::ids::{VersionKey, WorkerId};
use crate::ports::Unavailable;
use crate::ports::claims::{CLAIMS_MAX, Claims, FORGOTTEN_AFTER};

use super::commands::Commands;

static OFFER: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/offer.lua")));
static TAKE: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/take.lua")));
static WITHDRAW: LazyLock<Script> = LazyLock::new(|| Script::from_lua(include_str!("lua/withdraw.lua")));

pub(super) struct RedisClaims {
    prefix: Arc<str>,
    commands: Commands,
}

impl RedisClaims {
    pub fn new(prefix: Arc<str>, commands: Commands) -> Self {
        Self { prefix, commands }
    }

    fn keys(&self, version: VersionKey) -> Vec<Key> {
        let list = format!("{{{}:claims:{}/{}}}", self.prefix, version.function, version.number);
        let good_until = format!("{list}:until");
        vec![list.into(), good_until.into()]
    }
}

fn bytes(worker: WorkerId) -> Bytes {
    Bytes::copy_from_slice(worker.0.as_bytes())
}

#[async_trait]
impl Claims for RedisClaims {
    async fn offer(&self, version: VersionKey, worker: WorkerId, count: u32) -> Result<(), Unavailable> {
        let life = FORGOTTEN_AFTER.as_millis() as i64;
        let arguments = vec![bytes(worker).into(), i64::from(count).into(), life.into(), i64::from(CLAIMS_MAX).into()];
        self.commands.script::<i64>("offer", &OFFER, self.keys(version), arguments).await.map(drop)
    }

    async fn take(&self, version: VersionKey) -> Result<Option<WorkerId>, Unavailable> {
        let taken: Option<Bytes> = self.commands.script("take", &TAKE, self.keys(version), Vec::new()).await?;
        let Some(taken) = taken else { return Ok(None) };
        let worker = Uuid::from_slice(&taken).map_err(|_| Unavailable("Redis: a claim can't be read".to_owned()))?;
        Ok(Some(WorkerId(worker)))
    }

    async fn withdraw(&self, version: VersionKey, worker: WorkerId, count: u32) -> Result<u32, Unavailable> {
        let arguments = vec![bytes(worker).into(), i64::from(count).into(), i64::from(CLAIMS_MAX).into()];
        self.commands.script("withdraw", &WITHDRAW, self.keys(version), arguments).await
    }
}
