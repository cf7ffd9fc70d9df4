#[test]
fn dump() {
    std::fs::write(
        "/tmp/openapi.json",
        serde_json::to_string_pretty(&utmos_server::http::openapi()).unwrap(),
    )
    .unwrap();
}
