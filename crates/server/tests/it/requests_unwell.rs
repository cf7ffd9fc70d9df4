//! A store of device requests that a test can make slow or refuse, before the real one; and what comes of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use utmos_core::{
    command::StatusVersion,
    device_request::{DeviceRequest, Scope, SetRule},
    id::{DeviceRequestId, GatewaySn, TenantId},
    ports::{
        RequestChanged, RequestFilter, RequestKept, RequestStore, RuleSet, StoreError, TaskState,
    },
    reply::RawJson,
};

use crate::{
    app::{PATIENCE, TestApp},
    requests::{REQUESTS, RULES, ask, put_rule, until_listed},
};

pub struct UnwellRequests {
    inner: Arc<dyn RequestStore>,
    held: watch::Sender<bool>,
    refuses: AtomicBool,
    refuses_reads: AtomicBool,
    held_record: watch::Sender<bool>,
    refuses_record: AtomicBool,
    lies_once: AtomicBool,
}

impl UnwellRequests {
    pub fn new(inner: Arc<dyn RequestStore>) -> Self {
        let (refuses, refuses_reads) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            inner,
            held: watch::Sender::new(false),
            refuses,
            refuses_reads,
            held_record: watch::Sender::new(false),
            refuses_record: AtomicBool::new(false),
            lies_once: AtomicBool::new(false),
        }
    }

    /// From now on writes wait, or no longer.
    pub fn hold(&self, holds: bool) {
        self.held.send_replace(holds);
    }

    /// From now on writes are refused, or no longer.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    /// From now on what was sent for a task cannot be read, or can again.
    pub fn refuse_reads(&self, refuses: bool) {
        self.refuses_reads.store(refuses, Ordering::SeqCst);
    }

    /// The next change of a request is written, and said not to be.
    pub fn lie_once(&self) {
        self.lies_once.store(true, Ordering::SeqCst);
    }

    /// From now on whoever looks whether a request came before waits, or no longer.
    pub fn hold_record(&self, holds: bool) {
        self.held_record.send_replace(holds);
    }

    /// From now on nobody can see whether a request came before, or can again.
    pub fn refuse_record(&self, refuses: bool) {
        self.refuses_record.store(refuses, Ordering::SeqCst);
    }

    async fn pass(&self) -> Result<(), StoreError> {
        let held = self.held.subscribe().wait_for(|held| !held).await.map(|_| ());
        if held.is_err() || self.refuses.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("made so by a test".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl RequestStore for UnwellRequests {
    async fn keep_request(&self, request: Arc<DeviceRequest>) -> Result<RequestKept, StoreError> {
        self.pass().await?;
        self.inner.keep_request(request).await
    }

    async fn change_request(
        &self,
        seen: StatusVersion,
        request: Arc<DeviceRequest>,
    ) -> Result<RequestChanged, StoreError> {
        self.pass().await?;
        let changed = self.inner.change_request(seen, request).await;
        match self.lies_once.swap(false, Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("made so by a test".to_owned())),
            false => changed,
        }
    }

    async fn request_repeated(&self, key: [u8; 16]) -> Result<Option<DeviceRequest>, StoreError> {
        let held = self.held_record.subscribe().wait_for(|held| !held).await.map(|_| ());
        if held.is_err() || self.refuses_record.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("made so by a test".to_owned()));
        }
        self.inner.request_repeated(key).await
    }

    async fn request(&self, id: DeviceRequestId) -> Result<Option<DeviceRequest>, StoreError> {
        self.inner.request(id).await
    }

    async fn requests_of(
        &self,
        tenant: TenantId,
        filter: RequestFilter,
        before: Option<DeviceRequestId>,
        limit: usize,
    ) -> Result<Vec<DeviceRequest>, StoreError> {
        self.inner.requests_of(tenant, filter, before, limit).await
    }

    async fn requests_in_care(
        &self,
        after: Option<DeviceRequestId>,
        limit: usize,
    ) -> Result<Vec<DeviceRequest>, StoreError> {
        self.inner.requests_in_care(after, limit).await
    }

    async fn task_sent(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        method: &str,
        task: &str,
    ) -> Result<Option<RawJson>, StoreError> {
        if self.refuses_reads.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("made so by a test".to_owned()));
        }
        self.inner.task_sent(tenant, gateway, method, task).await
    }

    async fn task_state(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        method: &str,
        task: &str,
    ) -> Result<Option<TaskState>, StoreError> {
        self.inner.task_state(tenant, gateway, method, task).await
    }

    async fn rules_generation(&self) -> Result<u64, StoreError> {
        self.inner.rules_generation().await
    }

    async fn rules(&self) -> Result<Vec<SetRule>, StoreError> {
        self.inner.rules().await
    }

    async fn put_rule(&self, rule: SetRule) -> Result<RuleSet, StoreError> {
        self.pass().await?;
        self.inner.put_rule(rule).await
    }

    async fn remove_rule(&self, scope: Scope) -> Result<bool, StoreError> {
        self.pass().await?;
        self.inner.remove_rule(scope).await
    }
}

#[tokio::test]
async fn a_dock_is_answered_though_the_store_hangs_and_the_record_follows() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell_requests.hold(true);
    for _ in 0..3 {
        ask(&dock, "t-1", "flight_areas_get", json!({})).await;
        let answer = dock.message("/requests_reply").await;
        assert_eq!(answer.tid(), "t-1");
        assert_eq!(answer.body["data"], json!({"result": 0, "output": {"files": []}}));
    }
    assert_eq!(app.api.get(REQUESTS).await.body["items"], json!([]), "nothing is on record");
    app.unwell_requests.hold(false);
    let items = until_listed(&app.api, "?request_type=flight_areas_get", 1).await;
    assert_eq!(items[0]["routing_decision"], "AUTO_REPLIED");
}

#[tokio::test]
async fn copies_that_come_while_the_first_is_being_answered_get_the_same() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell_requests.hold(true);
    // None of them finds a record: that of the first cannot be written meanwhile.
    for _ in 0..4 {
        ask(&dock, "t-1", "offline_map_get", json!({})).await;
    }
    let first = dock.message("/requests_reply").await;
    for _ in 1..4 {
        let copy = dock.message("/requests_reply").await;
        assert_eq!((copy.tid(), &copy.body["data"]), (first.tid(), &first.body["data"]));
    }
    app.unwell_requests.hold(false);
    until_listed(&app.api, "", 1).await;
    assert_eq!(app.metric("utmos_device_requests_repeated_total").await, "3");
}

#[tokio::test]
async fn a_dock_is_answered_though_the_store_refuses() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell_requests.refuse(true);
    ask(&dock, "t-1", "offline_map_get", json!({})).await;
    assert_eq!(dock.message("/requests_reply").await.tid(), "t-1");
    // What somebody is to answer is not taken without a record: the dock asks again.
    ask(&dock, "t-2", "something_get", json!({})).await;
    tokio::time::timeout(PATIENCE, async {
        while !app.metric("utmos_device_requests_dropped_total").await.eq("1") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    app.unwell_requests.refuse(false);
    ask(&dock, "t-2", "something_get", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    assert_eq!(items[0]["request_type"], "something_get");
}

#[tokio::test]
async fn a_dock_that_asks_again_after_a_moments_trouble_is_answered() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell_requests.refuse_reads(true);
    ask(&dock, "t-1", "flighttask_resource_get", json!({"flight_id": "f"})).await;
    tokio::time::timeout(PATIENCE, async {
        while !app.metric("utmos_device_requests_dropped_total").await.eq("1") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    app.unwell_requests.refuse_reads(false);
    ask(&dock, "t-1", "flighttask_resource_get", json!({"flight_id": "f"})).await;
    assert_eq!(dock.message("/requests_reply").await.tid(), "t-1");
}

#[tokio::test]
async fn of_those_that_wait_no_more_are_kept_while_their_records_are_slow_to_write() {
    let app = TestApp::start().await;
    let loud = app.dock("DOCK-1").await;
    let waiting = "?device_id=DOCK-1&state=AWAITING_REPLY";
    // So many in each second are put on record.
    let mut number = 0;
    let mut ask_some = async || {
        for _ in 0..30 {
            ask(&loud, &format!("t-{number}"), "something_get", json!({"n": number})).await;
            number += 1;
        }
    };
    ask_some().await;
    until_listed(&app.api, waiting, 20).await;
    app.unwell_requests.hold(true);
    for _ in 0..4 {
        ask_some().await;
        // A new second for what may be recorded: the time itself is what is waited for.
        tokio::time::sleep(std::time::Duration::from_millis(1_050)).await;
    }
    app.unwell_requests.hold(false);
    let written = async {
        while app.metric("utmos_device_requests_recording").await != "0" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("they are written");
    let path = format!("{REQUESTS}{waiting}&limit=500");
    let kept = app.api.get(&path).await.body["items"].as_array().map(Vec::len);
    assert_eq!(kept, Some(64), "of those that wait so many are kept");
}

#[tokio::test]
async fn an_answer_by_hand_that_cannot_be_stored_is_no_answer() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    ask(&dock, "t-1", "something_get", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let reply = format!("{REQUESTS}/{}/reply", items[0]["request_id"].as_str().unwrap());
    app.unwell_requests.refuse(true);
    let refused = app.api.post(&reply, &json!({"reply_code": "0"})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED"));
    app.unwell_requests.refuse(false);
    let taken = app.api.post(&reply, &json!({"reply_code": "7"})).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    assert_eq!(dock.message("/requests_reply").await.body["data"], json!({"result": 7}));
}

/// A dock whose `offline_map_get` with the `tid` `t-1` was answered by hand, though the server answers that type by now.
async fn answered_by_hand(app: &TestApp) -> Value {
    let mut dock = app.dock("DOCK-1").await;
    put_rule(&app.api, "offline_map_get", json!({"mode": "manual", "reply_seconds": 600})).await;
    ask(&dock, "t-1", "offline_map_get", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let reply = format!("{REQUESTS}/{}/reply", items[0]["request_id"].as_str().unwrap());
    let taken = app.api.post(&reply, &json!({"reply_code": "7"})).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{taken:?}");
    let told = dock.message("/requests_reply").await;
    dock.leave().await;
    let rule = format!("{RULES}/offline_map_get");
    let back = app.api.request(Method::DELETE, &rule, None).await;
    assert_eq!(back.body["mode"], "auto");
    told.body["data"].clone()
}

#[tokio::test]
async fn a_request_that_was_answered_by_hand_gets_that_again_though_the_record_cannot_be_read() {
    let app = TestApp::start().await;
    let told = answered_by_hand(&app).await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell_requests.refuse_record(true);
    ask(&dock, "t-1", "offline_map_get", json!({})).await;
    let again = dock.message("/requests_reply").await;
    assert_eq!((again.tid(), &again.body["data"]), ("t-1", &told));
}

#[tokio::test]
async fn a_request_of_before_a_restart_waits_for_the_record_and_gets_no_other_answer() {
    let app = TestApp::start().await;
    let told = answered_by_hand(&app).await;
    let app = app.restart().await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell_requests.hold_record(true);
    for _ in 0..2 {
        ask(&dock, "t-1", "offline_map_get", json!({})).await;
        // Many times as long as a look at the record takes.
        dock.drain().await;
        app.api.get(REQUESTS).await;
    }
    app.unwell_requests.hold_record(false);
    for _ in 0..2 {
        let again = dock.message("/requests_reply").await;
        assert_eq!((again.tid(), &again.body["data"]), ("t-1", &told));
    }
    assert_eq!(until_listed(&app.api, "?request_type=offline_map_get", 1).await.len(), 1);
    assert_eq!(app.metric("utmos_device_requests_auto_replied_total").await, "1", "update_topo");
}

#[tokio::test]
async fn what_can_have_one_answer_only_is_answered_though_the_record_cannot_be_read() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell_requests.refuse_record(true);
    // Whether the dock was told something else about its binding nobody can see.
    ask(&dock, "t-1", "airport_bind_status", json!({"devices": [{"sn": "DOCK-1"}]})).await;
    tokio::time::timeout(PATIENCE, async {
        while app.metric("utmos_device_requests_dropped_total").await != "1" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    for (tid, method) in
        [("t-2", "flight_areas_get"), ("t-3", "offline_map_get"), ("t-4", "storage_config_get")]
    {
        ask(&dock, tid, method, json!({"module": 0})).await;
        assert_eq!(dock.message("/requests_reply").await.tid(), tid);
    }
    app.unwell_requests.refuse_record(false);
    ask(&dock, "t-1", "airport_bind_status", json!({"devices": [{"sn": "DOCK-1"}]})).await;
    assert_eq!(dock.message("/requests_reply").await.tid(), "t-1");
    // Once somebody has set a rule, people may have answered these as well.
    put_rule(&app.api, "config", json!({"mode": "auto"})).await;
    app.unwell_requests.refuse_record(true);
    ask(&dock, "t-5", "offline_map_get", json!({})).await;
    tokio::time::timeout(PATIENCE, async {
        while app.metric("utmos_device_requests_dropped_total").await != "2" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

/// The store wrote an answer by hand and could not say so: it leaves all the same.
#[tokio::test]
async fn an_answer_by_hand_whose_word_was_lost_leaves() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    ask(&dock, "t-1", "something_get", json!({})).await;
    let items = until_listed(&app.api, "?state=AWAITING_REPLY", 1).await;
    let reply = format!("{REQUESTS}/{}/reply", items[0]["request_id"].as_str().unwrap());
    app.unwell_requests.lie_once();
    let lost = app.api.post(&reply, &json!({"reply_code": "7"})).await;
    assert_eq!(lost.status, StatusCode::SERVICE_UNAVAILABLE, "{lost:?}");
    assert_eq!(dock.message("/requests_reply").await.body["data"], json!({"result": 7}));
}
