//! Devices come and go: told once, and kept over a restart.

use serde_json::json;

use crate::{
    app::{PATIENCE, TestApp},
    devices_api::shown,
};

async fn figure(app: &TestApp, name: &str) -> u64 {
    let text =
        app.api.bare(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("utmos_{name} ")));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

async fn until(app: &TestApp, name: &str, value: u64) {
    tokio::time::timeout(PATIENCE, async {
        while figure(app, name).await != value {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{name} never came to {value}"));
}

#[tokio::test]
async fn a_dock_and_its_aircraft_come_and_go_once_however_often_they_say_so() {
    let app = TestApp::start_with(&["presence.offline_after_seconds=1"]).await;
    let mut dock = app.dock("DOCK-1").await;
    for _ in 0..3 {
        dock.report_aircraft("AIR-1").await;
        dock.osd("DOCK-1", json!({"mode_code": 0})).await;
        dock.osd("AIR-1", json!({"mode_code": 0})).await;
    }
    until(&app, "devices_online", 2).await;
    assert_eq!(
        (figure(&app, "devices_came_total").await, figure(&app, "devices_went_total").await),
        (2, 0)
    );
    // The aircraft leaves, and the dock is still there.
    dock.report_nobody().await;
    until(&app, "devices_online", 1).await;
    dock.report_aircraft("AIR-1").await;
    until(&app, "devices_online", 2).await;
    // With its gateway it goes as well.
    dock.leave().await;
    until(&app, "devices_online", 0).await;
    assert_eq!(
        (figure(&app, "devices_came_total").await, figure(&app, "devices_went_total").await),
        (3, 3)
    );
    let device = shown(&app.api, "AIR-1", |one| one["online"] == false).await;
    assert_eq!(device["online_evidence"]["kind"], "gateway_offline");
}

#[tokio::test]
async fn one_that_is_back_soon_was_never_away_also_over_a_restart() {
    let app = TestApp::start_with(&["presence.offline_after_seconds=60"]).await;
    for _ in 0..3 {
        let dock = app.dock("DOCK-1").await;
        shown(&app.api, "DOCK-1", |one| one["online"] == true).await;
        dock.leave().await;
        let device = shown(&app.api, "DOCK-1", |one| one["online"] == false).await;
        assert_eq!(
            device["online_evidence"]["kind"], "disconnected",
            "what is shown is what is so now"
        );
    }
    assert_eq!(
        (figure(&app, "devices_came_total").await, figure(&app, "devices_went_total").await),
        (1, 0)
    );
    let app = app.restart().await;
    assert_eq!(figure(&app, "devices_online").await, 1, "it has time to come back");
    let before = shown(&app.api, "DOCK-1", |one| one["first_seen_at"].is_string()).await;
    let dock = app.dock("DOCK-1").await;
    let after = shown(&app.api, "DOCK-1", |one| one["online"] == true).await;
    assert_eq!(after["first_seen_at"], before["first_seen_at"]);
    assert_eq!(
        figure(&app, "devices_came_total").await,
        0,
        "its coming was told before the restart"
    );
    dock.leave().await;
}
