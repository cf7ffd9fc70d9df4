//! A tenant of many gateways that says or asks more than the store can take, and another tenant meanwhile.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    app::{PATIENCE, TestApp, put_gateway},
    dock::PretendDock,
    requests::{ask, until_listed},
};

/// So many docks of the first tenant, connected.
async fn docks(app: &TestApp, count: usize) -> Vec<PretendDock> {
    let mut putting = JoinSet::new();
    for number in 0..count {
        let (store, tenant) = (app.store.clone(), app.api.given.tenant);
        putting.spawn(async move { put_gateway(&*store, tenant, &format!("LOUD-{number}")).await });
    }
    putting.join_all().await;
    // Whatever came before it in the store is known when it is.
    app.credential(|_| {}).await;
    let mut connecting = JoinSet::new();
    for number in 0..count {
        let broker = app.mqtt;
        connecting
            .spawn(async move { PretendDock::connect(broker, &format!("LOUD-{number}")).await });
    }
    connecting.join_all().await
}

/// Each of the docks does something so often, all of them at once.
async fn all_say<F>(docks: &[Arc<PretendDock>], times: usize, say: fn(Arc<PretendDock>, usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut saying = JoinSet::new();
    for dock in docks {
        let dock = dock.clone();
        saying.spawn(async move {
            for number in 0..times {
                say(dock.clone(), number).await;
            }
        });
    }
    saying.join_all().await;
}

async fn until_metric(app: &TestApp, name: &str, value: &str) {
    let looking = async {
        while app.metric(name).await != value {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, looking).await;
    assert!(came.is_ok(), "{name} is {}, not {value}", app.metric(name).await);
}

async fn late_reply(dock: Arc<PretendDock>, _: usize) {
    let tid = Uuid::new_v4();
    let body = json!({"tid": tid, "bid": tid, "timestamp": 1, "method": "debug_mode_open", "data": {"result": 0}});
    dock.publish(&format!("thing/product/{}/services_reply", dock.sn), &body).await;
}

async fn question(dock: Arc<PretendDock>, number: usize) {
    ask(&dock, &format!("t-{number}"), "flight_areas_get", json!({})).await;
}

#[tokio::test]
async fn chores_of_a_tenant_with_many_gateways_leave_room_for_another_tenants() {
    let app = TestApp::start().await;
    app.other_tenant("second", "DOCK-9").await;
    let loud: Vec<_> = docks(&app, 84).await.into_iter().map(Arc::new).collect();
    let quiet = Arc::new(app.dock("DOCK-9").await);
    app.unwell.hold_everything();
    all_say(&loud, 64, late_reply).await;
    // The common half of the room and a quarter of the other, without the one that is being done.
    until_metric(&app, "utmos_uplink_chores", "5119").await;
    let dropped = app.metric("utmos_uplink_dropped_total").await;
    assert_ne!(dropped, "0");
    late_reply(quiet, 0).await;
    until_metric(&app, "utmos_uplink_chores", "5120").await;
    assert_eq!(app.metric("utmos_uplink_dropped_total").await, dropped, "it found room");
    app.unwell.release();
}

#[tokio::test]
async fn requests_of_a_tenant_with_many_gateways_leave_room_for_another_tenants() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let loud: Vec<_> = docks(&app, 300).await.into_iter().map(Arc::new).collect();
    let quiet = app.dock("DOCK-9").await;
    app.unwell_requests.hold(true);
    all_say(&loud, 20, question).await;
    // The common half of the room and a third of the other.
    until_metric(&app, "utmos_device_requests_recording", "5461").await;
    // What somebody is to answer is not taken without a record.
    ask(&quiet, "q-1", "something_get", json!({})).await;
    until_metric(&app, "utmos_device_requests_recording", "5462").await;
    app.unwell_requests.hold(false);
    until_listed(&other, "?state=AWAITING_REPLY", 1).await;
}
