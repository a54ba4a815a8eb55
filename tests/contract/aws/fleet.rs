//! The queue on SQS and the store in DynamoDB together, as a fleet has them: what is buried in the one is a letter in the other.
//!
//! Time that a test lets pass moves the clock of both, and that of the fast SQS; the emulator's own goes on as it does, so a test that runs
//! here has no message wait for longer than some seconds.

use std::sync::atomic::{AtomicU64, Ordering};

use faasd::adapters::aws::sqs::Queue;
use faasd::adapters::aws::sqs::metrics::Metrics;
use faasd::ports::queue::JobQueue;

use super::*;
use crate::support::sqs::FastSqs;

/// Who answers as SQS.
pub trait Messages: Sized + Send + Sync + 'static {
    /// With an empty queue, which `config` names.
    async fn start(config: &mut Config) -> Self;
    fn endpoint(&self) -> String;
    fn pass(&self, time: Duration);
}

impl Messages for FastSqs {
    async fn start(config: &mut Config) -> Self {
        let server = FastSqs::start().await;
        config.aws.queue_url = server.create("jobs", &[]);
        server
    }

    fn endpoint(&self) -> String {
        FastSqs::endpoint(self)
    }

    fn pass(&self, time: Duration) {
        FastSqs::pass(self, time);
    }
}

/// The emulator, beside the one that answers as DynamoDB.
pub struct MotoSqs(&'static Moto);

impl Messages for MotoSqs {
    async fn start(config: &mut Config) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let moto = Moto::parallel();
        let name = format!("fleet-{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let made = aws_sdk_sqs::Client::new(&moto.sdk().await).create_queue().queue_name(name).send().await.unwrap();
        config.aws.queue_url = made.queue_url().unwrap().to_owned();
        Self(moto)
    }

    fn endpoint(&self) -> String {
        self.0.endpoint.clone()
    }

    fn pass(&self, _: Duration) {}
}

pub type FastFleet = FleetWorld<OnFast, FastSqs>;
pub type MotoFleet = FleetWorld<OnMoto, MotoSqs>;

pub struct FleetWorld<S, M> {
    store: AwsWorld<S>,
    messages: M,
    queue: Arc<dyn JobQueue>,
}

async fn open_queue<S: Service>(store: &AwsWorld<S>, endpoint: &str) -> Arc<dyn JobQueue> {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let letters = store.store.dead_letters.clone();
    let (sdk, artifacts, clock) = (moto::sdk(endpoint).await, store.artifacts(), store.clock.clone());
    Arc::new(Queue::open(&sdk, &store.config, letters, artifacts, clock, metrics).unwrap())
}

impl<S: Service, M: Messages> World for FleetWorld<S, M> {
    const BEHIND: usize = S::BEHIND;
    const SOON: Duration = Duration::from_secs(5);
    /// SQS's own, a second old, and a busy machine.
    const FIGURES_LAG: Duration = Duration::from_secs(20);

    async fn open(mut config: Config) -> Self {
        let messages = M::start(&mut config).await;
        let store = AwsWorld::<S>::open(config).await;
        let queue = open_queue(&store, &messages.endpoint()).await;
        Self { store, messages, queue }
    }

    async fn killed(self) -> Self {
        let store = self.store.killed().await;
        let queue = open_queue(&store, &self.messages.endpoint()).await;
        Self { store, messages: self.messages, queue }
    }

    fn now(&self) -> Timestamp {
        self.store.now()
    }

    async fn pass(&self, time: Duration) {
        // The clock first: what counts as held here is held there.
        self.store.pass(time).await;
        self.messages.pass(time);
    }

    async fn sweep(&self) {
        self.store.sweep().await;
    }

    fn damage(&self, artifact: Digest) {
        self.store.damage(artifact);
    }

    fn rest(&self) -> &EmbeddedWorld {
        self.store.rest()
    }

    fn queue(&self) -> Arc<dyn JobQueue> {
        self.queue.clone()
    }
    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        self.store.dead_letters()
    }
    fn invocations(&self) -> Arc<dyn InvocationStore> {
        self.store.invocations()
    }
    fn registry(&self) -> Arc<dyn Registry> {
        self.store.registry()
    }
    fn keys(&self) -> Arc<dyn KeyStore> {
        self.store.keys()
    }
    fn lessons(&self) -> Arc<dyn Lessons> {
        self.store.lessons()
    }
}
