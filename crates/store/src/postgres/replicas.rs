//! Servers that share the database: who is there, who holds which shards, and what they hand to each other.
//!
//! Locks are taken in one order: the one of joining, then that of the member that something is taken from (`fence`), then
//! rows of `shards` by their number. Each in a statement of its own, so that the statement behind it sees what others
//! committed while it was waited for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use async_trait::async_trait;
use deadpool_postgres::{Object, Transaction};
use tokio::time::timeout;
use tokio_postgres::Row;
use utmos_core::{
    command::Command,
    id::CommandId,
    ports::{Joined, ReplicaStore, StoreError},
    replica::{BEAT_WAIT, Handed, InstanceId, Member, News, ReplicaId, Roll, Shard},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    PostgresStore,
    cells::Cells,
    fault::{Fault, pool_error},
    fence::{self, read_shard, shard_code},
    job::Ask,
    limits::HANDED_AT_ONCE,
    open::{EXPORTED, IMPORTING, closed_by, known},
    rare::{Params, execute, query, rarely, select},
    rows::{self, COMMAND, COMMAND_COLUMNS},
    text::kept,
};

/// Held by whoever joins: of two servers of which one works alone, only one comes to the other. `UTMS` and a number.
pub(super) const JOIN_LOCK: i64 = 0x5554_4D53_0000_0004;

/// Of this program. What servers say to each other through the database is the same for all that know one schema: a change of that
/// is a migration, if one that changes no table.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A row for each member, for [`read_roll`].
macro_rules! roll {
    ($members:literal) => {
        concat!(
            "SELECT m.id, m.instance, m.name, m.alone, m.client_id, m.line, m.beats, m.fit,
                 (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS clock,
                 ARRAY(SELECT s.shard FROM shards s WHERE s.replica = m.id ORDER BY s.shard) AS shards
             FROM (",
            $members,
            ") m ORDER BY m.id"
        )
    };
}

const ROLL: &str =
    roll!("SELECT id, instance, name, alone, client_id, line, beats, fit FROM replicas");

/// A statement sees the row as it was before its own change of it.
const BEAT: &str = concat!(
    "WITH me AS (UPDATE replicas SET beats = beats + 1, fit = $2 WHERE id = $1
         RETURNING id, instance, name, alone, client_id, line, beats, fit) ",
    roll!(
        "SELECT id, instance, name, alone, client_id, line, beats, fit FROM me
         UNION ALL SELECT id, instance, name, alone, client_id, line, beats, fit FROM replicas WHERE id <> $1"
    )
);

/// A row where PostgreSQL is at work on what came on a connection. Waiting to be rid of an answer is no work.
const AT_WORK: &str = "
    SELECT pid FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2
        AND coalesce(state, '') NOT LIKE 'idle%' AND wait_event IS DISTINCT FROM 'ClientWrite'";

const END_BACKEND: &str = "
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2";

#[async_trait]
impl ReplicaStore for PostgresStore {
    async fn join(&self, member: Member) -> Result<Joined, StoreError> {
        let joined: Result<Joined, StoreError> = rarely!(self, |tx| join(&tx, &member));
        let is_refused = matches!(joined, Ok(Joined::NotBeside(_) | Joined::SameClient(_)));
        if !is_refused {
            // Also where nobody knows whether it is a member: one that is none holds nothing.
            self.own.become_member(member.id);
            self.taken_in.forget();
        }
        joined
    }

    async fn beat(&self, id: ReplicaId, fit: bool) -> Result<Option<Roll>, StoreError> {
        let rows = self.give_sign(id, fit).await;
        self.condition.beaten(rows.is_ok());
        let roll = read_roll(&rows?)?;
        self.look_after_flows().await;
        Ok(roll.members.iter().any(|member| member.id == id).then_some(roll))
    }

    fn is_written(&self) -> bool {
        self.condition.is_reached()
    }

    async fn roll(&self) -> Result<Roll, StoreError> {
        read_roll(&self.read(ROLL, &[]).await?)
    }

    async fn expel(&self, id: ReplicaId, beats: u64) -> Result<bool, StoreError> {
        let beats = Some(beats.cast_signed());
        rarely!(self, |tx| remove(&tx, id, beats))
    }

    async fn take(&self, id: ReplicaId, shards: Vec<Shard>) -> Result<Vec<Shard>, StoreError> {
        rarely!(self, |tx| take(&tx, id, &shards))
    }

    async fn release(&self, id: ReplicaId, shards: Vec<Shard>) -> Result<(), StoreError> {
        self.taken_in.forget();
        rarely!(self, |tx| release(&tx, id, &shards))
    }

    async fn leave(&self, id: ReplicaId) -> Result<(), StoreError> {
        self.taken_in.forget();
        rarely!(self, |tx| remove(&tx, id, None)).map(drop)
    }

    async fn emergencies_elsewhere(
        &self,
        id: ReplicaId,
    ) -> Result<BTreeSet<CommandId>, StoreError> {
        let sql = "
            SELECT c.id FROM lives l JOIN commands c ON c.id = l.id JOIN replicas r ON r.id = c.accepted_by
            WHERE l.needs_care AND c.risk = 1 AND c.accepted_by <> $1";
        let rows = self.read(sql, &[&id.0]).await?;
        rows.iter().map(|row| Cells::new(row, "commands").uuid("id").map(CommandId::new)).collect()
    }

    async fn in_order(&self, ids: Vec<CommandId>) -> Result<Vec<CommandId>, StoreError> {
        let ids: Vec<Uuid> = ids.into_iter().map(CommandId::uuid).collect();
        let sql = "SELECT id FROM commands WHERE id = ANY ($1::uuid[]) ORDER BY seq";
        let rows = self.read(sql, &[&ids]).await?;
        rows.iter().map(|row| Cells::new(row, "commands").uuid("id").map(CommandId::new)).collect()
    }

    async fn handed(&self, id: ReplicaId) -> Result<Vec<Handed>, StoreError> {
        let sql = "
            SELECT h.command, h.urgent FROM shards s JOIN handed h ON h.shard = s.shard
                JOIN commands c ON c.id = h.command
            WHERE s.replica = $1 AND h.command <> ALL ($2::uuid[]) ORDER BY c.seq";
        let rows = self.read(sql, &[&id.0, &self.taken_in.all()]).await?;
        rows.iter().map(|row| read_handed(&mut Cells::new(row, "handed"))).collect()
    }

    async fn handed_commands(
        &self,
        id: ReplicaId,
    ) -> Result<Vec<(Handed, Option<Command>)>, StoreError> {
        let sql = format!(
            "SELECT {COMMAND}, h.command, h.urgent FROM shards s JOIN handed h ON h.shard = s.shard
                 JOIN commands c ON c.id = h.command JOIN lives l ON l.id = h.command
             WHERE s.replica = $1 AND h.command <> ALL ($2::uuid[]) ORDER BY c.seq LIMIT {HANDED_AT_ONCE}"
        );
        let rows = self.read(&sql, &[&id.0, &self.taken_in.all()]).await?;
        if rows.len() >= HANDED_AT_ONCE {
            // More than is held in memory at once.
            let handed = self.handed(id).await?;
            return Ok(handed.into_iter().map(|handed| (handed, None)).collect());
        }
        let read = |row: &Row| {
            let handed = read_handed(&mut Cells::behind(row, "handed", COMMAND_COLUMNS))?;
            let command = match handed.urgent {
                true => None,
                false => rows::command(row, &self.sealer).ok(),
            };
            Ok((handed, command))
        };
        rows.iter().map(read).collect()
    }

    async fn taken_in(&self, id: ReplicaId, taken: Vec<Handed>) -> Result<(), StoreError> {
        if self.own.id() != Some(id) {
            return Ok(());
        }
        let is_urgent = taken.iter().any(|handed| handed.urgent);
        let ids: Vec<Uuid> = taken.into_iter().map(|handed| handed.id.uuid()).collect();
        self.taken_in.add(&ids);
        let ask = Ask::TakenIn(ids.clone());
        if is_urgent {
            let noted = self.urgent_line.submit(ask).await;
            self.taken_in.remove(&ids);
            return noted.map(drop);
        }
        // It goes with what is written next. Where it cannot be written, they are told of once more.
        let (noted, taken_in) = (self.normal_line.leave(ask), self.taken_in.clone());
        tokio::spawn(async move {
            if let Some(noted) = noted {
                drop(noted.await);
            }
            taken_in.remove(&ids);
        });
        Ok(())
    }

    async fn hand_over(
        &self,
        emergencies: Vec<(CommandId, Shard)>,
    ) -> Result<Vec<CommandId>, StoreError> {
        // In one order, so that nobody waits for another in a circle.
        let emergencies: BTreeMap<Uuid, i16> =
            emergencies.into_iter().map(|(id, shard)| (id.uuid(), shard_code(shard))).collect();
        let (ids, shards): (Vec<Uuid>, Vec<i16>) = emergencies.into_iter().unzip();
        rarely!(self, |tx| hand_over(&tx, &ids, &shards))
    }

    async fn hand(&self, id: CommandId, shard: Shard) -> Result<(), StoreError> {
        rarely!(self, |tx| hand(&tx, id, shard))
    }

    fn tell(&self, news: News) {
        self.news.tell(news);
    }

    fn listen(&self, heard: Box<dyn Fn(News) + Send + Sync>) {
        self.news.listen(heard);
    }
}

impl PostgresStore {
    async fn give_sign(&self, id: ReplicaId, fit: bool) -> Result<Vec<Row>, StoreError> {
        let client = self.beats.get().await.map_err(|err| pool_error(&err))?;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&id.0, &fit];
        match timeout(BEAT_WAIT * 3, query(&client, BEAT, &params)).await {
            Ok(rows) => rows.map_err(Fault::into_error),
            Err(_) => {
                // Whatever it still says is not to be taken for the answer to the next one.
                drop(Object::take(client));
                let text = "PostgreSQL has not answered a sign of life in time".to_owned();
                Err(StoreError::Unavailable(text))
            }
        }
    }

    /// Asks PostgreSQL, where a sign of life has just been answered, what it does for batches whose answer takes long.
    async fn look_after_flows(&self) {
        for owed in self.condition.owed() {
            let Ok(client) = self.beats.get().await else { return };
            let params: Params<'_> = &[&owed.backend.pid, &owed.backend.began];
            let looking = async {
                let at_work = query(&client, AT_WORK, params).await?;
                if self.condition.looked(&owed, !at_work.is_empty()) {
                    // It holds locks, and what is on its way to it must come too late.
                    query(&client, END_BACKEND, params).await?;
                }
                Ok::<_, Fault>(())
            };
            match timeout(BEAT_WAIT, looking).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => {
                    let error = fault.into_error();
                    tracing::debug!(%error, "it was not told what PostgreSQL does for a batch");
                }
                Err(_) => return drop(Object::take(client)),
            }
        }
    }

    /// From which address the database sees this server come; `None` where both are on one machine and need none.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn seen_from(&self) -> Result<Option<IpAddr>, StoreError> {
        let rows = self.read("SELECT host(inet_client_addr()) AS address", &[]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Unavailable("no answer".to_owned()))?;
        let mut cells = Cells::new(row, "address");
        match cells.maybe_text("address")? {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|err| cells.damaged("address", err)),
        }
    }

    /// What the database's own clock shows.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn clock(&self) -> Result<Timestamp, StoreError> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS clock";
        let rows = self.read(sql, &[]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Unavailable("no answer".to_owned()))?;
        Ok(Timestamp::from_millis(Cells::new(row, "clock").get("clock")?))
    }
}

/// Reads `command, urgent`.
fn read_handed(cells: &mut Cells<'_>) -> Result<Handed, StoreError> {
    let id = CommandId::new(cells.uuid("command")?);
    Ok(Handed { id, urgent: cells.get("urgent")? })
}

fn codes(shards: &[Shard]) -> Vec<i16> {
    shards.iter().copied().map(shard_code).collect()
}

fn read_roll(rows: &[Row]) -> Result<Roll, StoreError> {
    let mut roll =
        Roll { members: Vec::with_capacity(rows.len()), holders: BTreeMap::new(), at: None };
    for row in rows {
        let mut cells = Cells::new(row, "replicas");
        let member = read_member(&mut cells)?;
        let clock = Timestamp::from_millis(cells.get("clock")?);
        // The rows are read one after another, and the first of them comes next to when the question did.
        roll.at = roll.at.or(Some(clock));
        let shards: Vec<i16> = cells.get("shards")?;
        for number in shards {
            let shard = u8::try_from(number).ok().and_then(Shard::from_number);
            let shard = shard
                .ok_or_else(|| cells.damaged("shards", format!("there is no shard {number}")))?;
            roll.holders.insert(shard, member.id);
        }
        roll.members.push(member);
    }
    Ok(roll)
}

/// Reads `id, instance, name, alone, client_id, line, beats, fit`.
fn read_member(cells: &mut Cells<'_>) -> Result<Member, StoreError> {
    let id = cells.uuid("id")?;
    cells.name(id);
    Ok(Member {
        id: ReplicaId(id),
        instance: InstanceId(cells.uuid("instance")?),
        name: cells.text("name")?,
        alone: cells.get("alone")?,
        client_id: cells.maybe_text("client_id")?,
        // Nobody depends on it.
        line: cells.maybe_text("line")?.and_then(|text| text.parse().ok()),
        beats: cells.get::<i64>("beats")?.cast_unsigned(),
        fit: cells.get("fit")?,
    })
}

/// Waits for the batches that a member writes, and lets none begin, until this transaction ends.
async fn hold_up(tx: &Transaction<'_>, id: Uuid) -> Result<(), Fault> {
    select(tx, "SELECT pg_advisory_xact_lock($1)", &[&fence::key(id)]).await?;
    Ok(())
}

async fn join(tx: &Transaction<'_>, member: &Member) -> Result<Joined, Fault> {
    select(tx, "SELECT pg_advisory_xact_lock($1)", &[&JOIN_LOCK]).await?;
    // A server whose connections are older than that would become one all the same.
    let sql = "SELECT name FROM meta WHERE name IN ($1, $2) ORDER BY name DESC";
    if let Some(row) = select(tx, sql, &[&IMPORTING, &EXPORTED]).await?.first() {
        let mark = Cells::new(row, "meta").text("name")?;
        return Err(Fault::Everyone(StoreError::Unavailable(closed_by(&mark).to_owned())));
    }
    // One that was cut off while another version brought the schema up to date, and is back.
    let sql = "SELECT max(version) AS version FROM schema_migrations";
    for row in select(tx, sql, &[]).await? {
        let found: i32 = Cells::new(&row, "schema_migrations").get("version")?;
        if found != known() {
            return Err(Fault::Everyone(StoreError::Unavailable(format!(
                "the database has schema {found} by now, and this server knows schema {}: stop it, and start the version that the other servers run",
                known()
            ))));
        }
    }
    let sql = "SELECT id, instance, name, alone, client_id, line, beats, fit FROM replicas
               WHERE instance <> $1 AND (alone OR $2) ORDER BY id LIMIT 1";
    let (id, instance) = (member.id.0, member.instance.0);
    if let Some(row) = select(tx, sql, &[&instance, &member.alone]).await?.first() {
        return Ok(Joined::NotBeside(read_member(&mut Cells::new(row, "replicas"))?));
    }
    let sql = "SELECT id, instance, name, alone, client_id, line, beats, fit FROM replicas
               WHERE instance <> $1 AND client_id = $2 ORDER BY id LIMIT 1";
    let client_id = member.client_id.as_deref().map(kept);
    if let Some(row) = select(tx, sql, &[&instance, &client_id]).await?.first() {
        return Ok(Joined::SameClient(read_member(&mut Cells::new(row, "replicas"))?));
    }
    let sql = "SELECT id FROM replicas WHERE instance = $1";
    if let Some(row) = select(tx, sql, &[&instance]).await?.first() {
        let before = Cells::new(row, "replicas").uuid("id")?;
        hold_up(tx, before).await?;
        if before != id {
            execute(tx, "DELETE FROM replicas WHERE id = $1", &[&before]).await?;
            lock_held(tx, before).await?;
            let sql = "UPDATE shards SET replica = $2 WHERE replica = $1";
            execute(tx, sql, &[&before, &id]).await?;
        }
    }
    let sql = "
        INSERT INTO replicas AS r (id, instance, name, alone, client_id, line, beats, fit, version)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, alone = excluded.alone, client_id = excluded.client_id,
            line = excluded.line, fit = excluded.fit, version = excluded.version, beats = greatest(r.beats + 1, excluded.beats)";
    let (beats, name) = (member.beats.cast_signed(), kept(&member.name));
    let (alone, line) = (member.alone, member.line.map(|line| line.to_string()));
    let params: Params<'_> =
        &[&id, &instance, &name, &alone, &client_id, &line, &beats, &member.fit, &VERSION];
    execute(tx, sql, params).await?;
    Ok(Joined::Yes(read_roll(&select(tx, ROLL, &[]).await?)?))
}

/// Makes every member none and frees what they held, also that of one that is cut off and does not hear of it: once this is
/// committed, nobody begins to send by this database. Part of the transaction that closes it. Locks as [`join`] and
/// [`remove`] do.
pub(crate) async fn dissolve(
    tx: &tokio_postgres::Transaction<'_>,
) -> Result<(), tokio_postgres::Error> {
    tx.query("SELECT pg_advisory_xact_lock($1)", &[&JOIN_LOCK]).await?;
    for row in tx.query("SELECT id FROM replicas ORDER BY id", &[]).await? {
        let key = fence::key(row.try_get(0)?);
        tx.query("SELECT pg_advisory_xact_lock($1)", &[&key]).await?;
    }
    tx.batch_execute(
        "SELECT shard FROM shards ORDER BY shard FOR UPDATE;
         DELETE FROM replicas; UPDATE shards SET replica = NULL",
    )
    .await
}

/// Makes a member none; with `beats`, only one that has given so many signs of life.
async fn remove(tx: &Transaction<'_>, id: ReplicaId, beats: Option<i64>) -> Result<bool, Fault> {
    hold_up(tx, id.0).await?;
    let sql = "DELETE FROM replicas WHERE id = $1 AND beats = coalesce($2, beats)";
    if execute(tx, sql, &[&id.0, &beats]).await? == 0 {
        return Ok(false);
    }
    lock_held(tx, id.0).await?;
    execute(tx, "UPDATE shards SET replica = NULL WHERE replica = $1", &[&id.0]).await?;
    Ok(true)
}

/// In their order, so that nobody waits for another in a circle.
async fn lock_held(tx: &Transaction<'_>, id: Uuid) -> Result<(), Fault> {
    let sql = "SELECT shard FROM shards WHERE replica = $1 ORDER BY shard FOR UPDATE";
    select(tx, sql, &[&id]).await?;
    Ok(())
}

async fn take(tx: &Transaction<'_>, id: ReplicaId, shards: &[Shard]) -> Result<Vec<Shard>, Fault> {
    let codes = codes(shards);
    // Its own batches: what they hand to the holder of a shard is there before it becomes the holder.
    hold_up(tx, id.0).await?;
    let sql =
        "SELECT shard FROM shards WHERE shard = ANY ($1::smallint[]) ORDER BY shard FOR UPDATE";
    select(tx, sql, &[&codes]).await?;
    // Whoever is no member has no batch under way that knew it as one: it was waited for.
    let sql = "
        UPDATE shards s SET replica = $2
        WHERE s.shard = ANY ($1::smallint[]) AND EXISTS (SELECT FROM replicas r WHERE r.id = $2)
            AND (s.replica = $2 OR NOT EXISTS (SELECT FROM replicas r WHERE r.id = s.replica))
        RETURNING s.shard";
    let mut taken = Vec::new();
    for row in select(tx, sql, &[&codes, &id.0]).await? {
        taken.push(read_shard(&mut Cells::new(&row, "shards"))?);
    }
    taken.sort_unstable();
    Ok(taken)
}

async fn release(tx: &Transaction<'_>, id: ReplicaId, shards: &[Shard]) -> Result<(), Fault> {
    hold_up(tx, id.0).await?;
    let codes = codes(shards);
    let sql = "SELECT shard FROM shards WHERE shard = ANY ($1::smallint[]) AND replica = $2 ORDER BY shard FOR UPDATE";
    select(tx, sql, &[&codes, &id.0]).await?;
    let sql =
        "UPDATE shards SET replica = NULL WHERE shard = ANY ($1::smallint[]) AND replica = $2";
    execute(tx, sql, &[&codes, &id.0]).await?;
    Ok(())
}

async fn hand(tx: &Transaction<'_>, id: CommandId, shard: Shard) -> Result<(), Fault> {
    let sql = "
        INSERT INTO handed (command, shard, urgent)
        SELECT l.id, $2, false FROM lives l WHERE l.id = $1 AND l.needs_care ON CONFLICT (command) DO NOTHING";
    execute(tx, sql, &[&id.uuid(), &shard_code(shard)]).await?;
    Ok(())
}

async fn hand_over(
    tx: &Transaction<'_>,
    ids: &[Uuid],
    shards: &[i16],
) -> Result<Vec<CommandId>, Fault> {
    let sql = "
        WITH given AS (SELECT * FROM unnest($1::uuid[], $2::smallint[]) AS given (id, shard)),
            freed AS (UPDATE commands SET accepted_by = NULL WHERE id = ANY ($1::uuid[]) RETURNING id),
            handed_on AS (
                INSERT INTO handed (command, shard, urgent)
                SELECT given.id, given.shard, true FROM given JOIN freed ON freed.id = given.id
                ON CONFLICT (command) DO NOTHING)
        SELECT id FROM freed";
    let mut handed = Vec::new();
    for row in select(tx, sql, &[&ids, &shards]).await? {
        handed.push(CommandId::new(Cells::new(&row, "commands").uuid("id")?));
    }
    Ok(handed)
}
