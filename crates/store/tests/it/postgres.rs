//! The contract on PostgreSQL, and what is PostgreSQL's own.

use std::net::TcpStream;

use crate::postgres_server::{PostgresServer, Stop};

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
    assert_eq!(database.end_connections(), 0);
    assert!(database.dump().contains("(1, 'a')"));
    let folder = server.folder().to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
    assert!(TcpStream::connect(database.address()).is_err());
}
