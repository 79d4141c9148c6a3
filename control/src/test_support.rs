//! What tests of this crate share: an endpoint without sockets, whose clock the test moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use futures_util::future::BoxFuture;
use moorline_protocol::{
    message::PolicyAnswer,
    types::{ActivationId, InstanceId, SessionId},
};
use moorline_ssm::Operation;

use crate::{
    api::{ApiError, ApiResult, RequestContext, Router, router},
    app::{App, Clock, NotAnswered, Routing},
    audit::{AuditLog, CallRecord, Source},
    auth::{EndpointSigningKey, KmsKeys, LatelyRegistered, MasterKey, Principal, Purpose},
    log_lines::NodeLines,
    server::{Bodies, LongPolls, Metrics},
    store::{AccessKeyRow, AttachmentFiles, NewActivation, NewNode, Store, TranscriptFiles},
};

/// 2026-11-22T00:00:00Z.
pub(crate) const START_MILLIS: u64 = 1_795_305_600_000;
/// How long transcripts are kept: 90 days.
pub(crate) const TRANSCRIPT_RETENTION_MILLIS: u64 = 90 * 24 * 60 * 60 * 1000;
pub(crate) const HOST: &str = "127.0.0.1:8443";
/// An RSA-2048 public key, as nodes send it.
pub(crate) const PUBLIC_KEY: &str = include_str!("../tests/data/node-public-key.txt");

/// What this thread writes into the log as long as this is there.
pub(crate) struct CapturedLog {
    text: Arc<Mutex<Vec<u8>>>,
    _while_it_lives: tracing::subscriber::DefaultGuard,
    /// With one alone, a thread without it may settle for all that a line is never written.
    _second: tracing::Dispatch,
}

impl CapturedLog {
    pub(crate) fn begin() -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&text);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || CapturedLines(Arc::clone(&writer)))
            .finish();
        Self {
            text,
            _while_it_lives: tracing::subscriber::set_default(subscriber),
            _second: tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default()),
        }
    }

    /// The lines with this text.
    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }
}

struct CapturedLines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for CapturedLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Channels that end nowhere; remembers what was asked of it.
#[derive(Debug, Default)]
pub(crate) struct RecordedRouting {
    pub(crate) connected: Mutex<BTreeSet<InstanceId>>,
    /// What nodes say of their owners' policies.
    pub(crate) policies: Mutex<BTreeMap<InstanceId, PolicyAnswer>>,
    pub(crate) calls: Mutex<Vec<String>>,
}

impl RecordedRouting {
    fn record(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

impl Routing for RecordedRouting {
    fn is_connected<'a>(&'a self, node: &'a InstanceId) -> BoxFuture<'a, bool> {
        let is_connected = self.connected.lock().unwrap().contains(node);
        Box::pin(std::future::ready(is_connected))
    }

    fn ask_policy<'a>(
        &'a self,
        node: &'a InstanceId,
        content: &'a Arc<str>,
    ) -> BoxFuture<'a, Result<PolicyAnswer, NotAnswered>> {
        self.record(format!("ask {node}: {content}"));
        let answer = self.policies.lock().unwrap().get(node).cloned();
        Box::pin(std::future::ready(answer.ok_or(NotAnswered::Offline)))
    }

    fn nudge(&self, node: &InstanceId) {
        self.record(format!("nudge {node}"));
    }

    fn end_session<'a>(&'a self, session: &'a SessionId, reason: &'a str) -> BoxFuture<'a, ()> {
        self.record(format!("end {session}: {reason}"));
        Box::pin(std::future::ready(()))
    }

    fn disconnect<'a>(&'a self, node: &'a InstanceId, reason: &'a str) -> BoxFuture<'a, ()> {
        self.record(format!("disconnect {node}: {reason}"));
        Box::pin(std::future::ready(()))
    }
}

/// An endpoint with a fresh store.
pub(crate) struct TestApp {
    pub(crate) app: Arc<App>,
    pub(crate) router: Router,
    pub(crate) routing: Arc<RecordedRouting>,
    now: Arc<AtomicU64>,
    /// By how much the wall clock was set.
    step: Arc<AtomicI64>,
    dir: Arc<tempfile::TempDir>,
}

impl TestApp {
    pub(crate) async fn new() -> Self {
        let routing = Arc::new(RecordedRouting::default());
        Self::build(Arc::clone(&routing), routing).await
    }

    /// With real channels; [`Self::routing`] then records nothing.
    pub(crate) async fn over(channels: Arc<dyn Routing>) -> Self {
        Self::build(Arc::default(), channels).await
    }

    async fn build(routing: Arc<RecordedRouting>, channels: Arc<dyn Routing>) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        Self::build_in(dir, START_MILLIS, routing, channels).await
    }

    /// The endpoint as it is after a crash: what was in memory is gone.
    pub(crate) async fn restarted(self) -> Self {
        let (dir, now) = (Arc::clone(&self.dir), self.now());
        drop(self);
        let routing = Arc::new(RecordedRouting::default());
        Self::build_in(dir, now, Arc::clone(&routing), routing).await
    }

    async fn build_in(
        dir: Arc<tempfile::TempDir>,
        start: u64,
        routing: Arc<RecordedRouting>,
        channels: Arc<dyn Routing>,
    ) -> Self {
        let store = Store::open(dir.path()).await.expect("a fresh store opens");
        let now = Arc::new(AtomicU64::new(start));
        let step = Arc::new(AtomicI64::new(0));
        let (steady, wall_base, wall_step) = (Arc::clone(&now), Arc::clone(&now), Arc::clone(&step));
        let clock = Clock::from_fns(
            move || wall_time(&wall_base, &wall_step),
            move || steady.load(Ordering::SeqCst),
        );
        let metrics = Metrics::default();
        let signing_key = signing_key(dir.path());
        let audit = AuditLog::open(
            &dir.path().join("audit"),
            Arc::clone(&signing_key),
            clock.clone(),
            metrics.counter("moorline_audit_failures_total", &[]),
        );
        let attachments = dir.path().join("attachments");
        std::fs::create_dir_all(&attachments).expect("a folder for attachments");
        let app = App {
            attachments: AttachmentFiles::new(attachments),
            attachment_source: None,
            audit: audit.expect("the audit log opens"),
            bodies: Bodies::default(),
            clock,
            keys: MasterKey::from_bytes(&[7; MasterKey::LENGTH]),
            kms: kms_keys(),
            lately_registered: LatelyRegistered::default(),
            metrics,
            node_lines: NodeLines::default(),
            output_store: None,
            polls: LongPolls::default(),
            region: "us-east-1".to_owned(),
            routing: channels,
            store,
            transcripts: transcripts(dir.path().join("transcripts"), &signing_key),
            signing_key,
            transcript_retention_millis: Some(TRANSCRIPT_RETENTION_MILLIS),
        };
        Self {
            app: Arc::new(app),
            router: router(),
            routing,
            now,
            step,
            dir,
        }
    }

    /// The endpoint ends; its directory stays as long as what is returned.
    pub(crate) fn close(self) -> Arc<tempfile::TempDir> {
        Arc::clone(&self.dir)
    }

    /// Another process takes this one's store and transcripts over.
    pub(crate) fn continue_with(&mut self, fresh: Self, store: Store) {
        let app = Arc::into_inner(fresh.app).expect("nobody uses the fresh app yet");
        let transcripts = self.app.transcripts.clone();
        fresh.now.store(self.now(), Ordering::SeqCst);
        (self.now, self.step) = (fresh.now, fresh.step);
        self.app = Arc::new(App {
            store,
            transcripts,
            ..app
        });
    }

    /// Transcripts find no room; whoever serves the app before goes on with the old one.
    pub(crate) fn fill_disk(&mut self) {
        let app = &self.app;
        self.app = Arc::new(App {
            attachments: app.attachments.clone(),
            attachment_source: None,
            audit: app.audit.clone(),
            bodies: Bodies::default(),
            clock: app.clock.clone(),
            keys: MasterKey::from_bytes(&[7; MasterKey::LENGTH]),
            kms: kms_keys(),
            lately_registered: LatelyRegistered::default(),
            metrics: Metrics::default(),
            node_lines: NodeLines::default(),
            output_store: None,
            polls: LongPolls::default(),
            region: app.region.clone(),
            routing: Arc::clone(&app.routing),
            signing_key: Arc::clone(&app.signing_key),
            store: app.store.clone(),
            transcript_retention_millis: app.transcript_retention_millis,
            transcripts: TranscriptFiles::without_room(
                self.dir.path().join("transcripts"),
                Arc::clone(&app.signing_key),
            ),
        });
    }

    /// The state directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn now(&self) -> u64 {
        wall_time(&self.now, &self.step)
    }

    /// Somebody sets the wall clock; no time passes.
    pub(crate) fn step_clock(&self, millis: i64) {
        self.step.fetch_add(millis, Ordering::SeqCst);
    }

    pub(crate) fn advance_millis(&self, millis: u64) {
        self.now.fetch_add(millis, Ordering::SeqCst);
    }

    pub(crate) fn set_millis(&self, unix_millis: u64) {
        self.now.store(unix_millis, Ordering::SeqCst);
    }

    /// Stores an administrator's access key; the id names it.
    pub(crate) async fn add_access_key(&self, access_key_id: &str, secret: &str) {
        let key = AccessKeyRow {
            access_key_id: access_key_id.to_owned(),
            user_name: "admin".to_owned(),
            sealed_secret: self
                .app
                .keys
                .seal(Purpose::AccessKeySecret, access_key_id, secret),
        };
        self.app.store.insert_access_key(&key, self.now()).await.unwrap();
    }

    fn call_record(&self) -> Arc<CallRecord> {
        let source = Source {
            peer: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            user_agent: Some("test".to_owned()),
            claimed_key: None,
            request_id: "test".to_owned(),
            target: String::new(),
        };
        Arc::new(CallRecord::new(self.app.audit.clone(), source))
    }

    /// A request's context, as the server makes it.
    pub(crate) fn context(&self, principal: Principal) -> RequestContext {
        RequestContext {
            app: Arc::clone(&self.app),
            principal,
            host: HOST.to_owned(),
            now: self.now(),
            record: self.call_record(),
            request_id: "test".to_owned(),
            peer: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        }
    }

    /// Calls an operation through the router, as bytes on both sides.
    pub(crate) async fn call_as<O: Operation>(
        &self,
        principal: Principal,
        input: O::Input,
    ) -> ApiResult<O::Output> {
        let target = format!("{}.{}", O::PREFIX, O::NAME);
        let body = O::encode_input(&input);
        let cx = self.context(principal);
        let record = Arc::clone(&cx.record);
        record.is_by(&cx.principal);
        let reply = self.router.call(cx, &target, body.into()).await;
        record.finish(&reply).await;
        Ok(O::decode_output(&reply?).expect("our own reply can be read"))
    }

    /// As an administrator.
    pub(crate) async fn call<O: Operation>(&self, input: O::Input) -> ApiResult<O::Output> {
        self.call_as::<O>(administrator(), input).await
    }

    /// Calls an operation that must be refused.
    pub(crate) async fn refuse_as<O: Operation>(&self, principal: Principal, input: O::Input) -> ApiError {
        match self.call_as::<O>(principal, input).await {
            Ok(_) => panic!("{} was not refused", O::NAME),
            Err(error) => error,
        }
    }

    /// As an administrator.
    pub(crate) async fn refuse<O: Operation>(&self, input: O::Input) -> ApiError {
        self.refuse_as::<O>(administrator(), input).await
    }

    /// Registers a node straight in the store; `index` makes its id and key.
    pub(crate) async fn register_node(&self, index: u32, tags: &[(&str, &str)]) -> InstanceId {
        let new = NewNode {
            instance_id: node_id(index),
            fingerprint: FINGERPRINT.to_owned(),
            public_key: if index == 0 {
                PUBLIC_KEY.trim().to_owned()
            } else {
                format!("key {index}")
            },
            registered_from: None,
        };
        self.register(new, tags).await;
        node_id(index)
    }

    /// Registers a node straight in the store, with an activation of its own.
    pub(crate) async fn register(&self, node: NewNode, tags: &[(&str, &str)]) {
        let activation_id: ActivationId = uuid::Uuid::new_v4().to_string().parse().unwrap();
        let tags = tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let activation = NewActivation {
            activation_id: activation_id.clone(),
            code_hash: String::new(),
            iam_role: "service-role/test".to_owned(),
            description: None,
            default_instance_name: None,
            registration_limit: 1,
            expires_at: u64::MAX,
            tags,
        };
        self.app
            .store
            .insert_activation(&activation, self.now())
            .await
            .unwrap();
        let registered = self
            .app
            .store
            .register_node(&activation_id, &node, self.now(), |_| true)
            .await;
        assert_eq!(registered.unwrap(), Ok(()));
    }
}

/// What [`TestApp::register_node`] binds its nodes to.
pub(crate) const FINGERPRINT: &str = "f76d924d-858a-42d9-abcb-91c779f69427";

pub(crate) fn node_id(index: u32) -> InstanceId {
    format!("mi-{index:017x}").parse().unwrap()
}

pub(crate) fn administrator() -> Principal {
    Principal::Administrator {
        access_key_id: "AKIATEST".to_owned(),
        user_name: "admin".to_owned(),
    }
}

fn wall_time(base: &AtomicU64, step: &AtomicI64) -> u64 {
    base.load(Ordering::SeqCst)
        .saturating_add_signed(step.load(Ordering::SeqCst))
}

/// The same for every endpoint, as a file that was kept would make them.
fn kms_keys() -> KmsKeys {
    let file = "moorline-kms-keys 1\n4dc7a5a6-6cdb-4e8a-9a43-7f4c2b1d0e9f AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    KmsKeys::read(file).expect("a key of zeroes is a key")
}

/// Of the endpoint in this directory.
fn signing_key(dir: &Path) -> Arc<EndpointSigningKey> {
    let path = dir.join("signing.key");
    let file = std::fs::read(&path).unwrap_or_else(|_| EndpointSigningKey::new_file());
    std::fs::write(&path, &file).expect("the directory can be written");
    Arc::new(EndpointSigningKey::read(&file).expect("a new file holds a key"))
}

fn transcripts(dir: PathBuf, signer: &Arc<EndpointSigningKey>) -> TranscriptFiles {
    TranscriptFiles::new(dir, Arc::clone(signer))
}
