//! The statements of a writer, each for a whole batch, prepared once for each connection.
//!
//! Every parameter is an array with one element for each row: of rows where they are wide ([`super::records`]).

use tokio_postgres::{Client, Statement};

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        pub(super) struct Statements {
            $($(#[$doc])* pub(super) $name: Statement,)*
        }

        impl Statements {
            /// Prepares all of them, one behind the other on the wire.
            pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
                $(let $name = client.prepare($sql);)*
                let ($($name,)*) = tokio::try_join!($($name,)*)?;
                Ok(Self { $($name,)* })
            }
        }
    };
}

statements! {
    /// Both as the migration `0010_batches.sql` makes them.
    learn = "SELECT * FROM learn_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    write = "
        SELECT write_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
            $22, $23, $24, $25)";
    keys_before = "
        SELECT i.key, i.command, c.id, c.tenant, c.idempotency_key, c.fingerprint, c.accepted_at, l.phase, l.failure
        FROM unnest($1::uuid[]) AS u (key) JOIN idempotency i ON i.key = u.key
        LEFT JOIN commands c ON c.id = i.command LEFT JOIN lives l ON l.id = i.command";
    motions = "
        SELECT m.command, m.tenant, m.gateway, m.aircraft, m.method
        FROM unnest($1::uuid[], $2::text[]) AS u (tenant, gateway)
        JOIN motions m ON m.tenant = u.tenant AND m.gateway = u.gateway
        UNION
        SELECT m.command, m.tenant, m.gateway, m.aircraft, m.method
        FROM unnest($1::uuid[], $3::text[]) AS u (tenant, aircraft)
        JOIN motions m ON m.tenant = u.tenant AND m.aircraft = u.aircraft";
}
