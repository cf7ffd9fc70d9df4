//! The rest of the contract on PostgreSQL, and the server that tests start.

use std::{net::TcpStream, sync::Arc};

use async_trait::async_trait;

use crate::{
    contract::{FullPlace, FullStore},
    full_contract_tests,
    postgres_commands::PostgresPlace,
    postgres_server::{PostgresServer, Stop},
};

#[async_trait]
impl FullPlace for PostgresPlace {
    async fn open_full(&self) -> Arc<dyn FullStore> {
        Arc::new(self.store().await)
    }

    async fn at_rest(&self) -> Vec<u8> {
        // What is bytes stands there as digits.
        let dump = self.database.dump();
        let mut all = dump.clone().into_bytes();
        for digits in dump.split(|c: char| !c.is_ascii_hexdigit()).filter(|it| it.len() % 2 == 0) {
            all.extend(hex::decode(digits).unwrap());
        }
        all
    }
}

full_contract_tests!(PostgresPlace::new());

#[test]
fn each_database_of_the_shared_server_is_a_new_one() {
    let (one, two) = (PostgresServer::shared().database(), PostgresServer::shared().database());
    one.sql("CREATE TABLE things (n int)");
    assert_eq!(two.sql("SELECT count(*) FROM pg_class WHERE relname = 'things'"), "0");
}

#[test]
fn a_server_comes_back_with_what_it_held_and_is_gone_with_its_folder_when_it_is_dropped() {
    let server = PostgresServer::own();
    let database = server.database();
    assert_eq!(database.sql("CREATE TABLE things AS SELECT 1 AS n, 'a' AS name; SHOW fsync"), "on");
    for how in [Stop::Immediate, Stop::Fast] {
        server.stop(how);
        assert!(TcpStream::connect(database.address()).is_err());
        server.begin();
        assert_eq!(database.sql("SELECT * FROM things"), "1|a", "{how:?}");
    }
    // That of the last statement may be on its way out.
    assert!((0..1_000).any(|_| database.end_connections() == 0));
    assert!(database.dump().contains("(1, 'a')"));
    let folder = server.folder().to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
    assert!(TcpStream::connect(database.address()).is_err());
}
