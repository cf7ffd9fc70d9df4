//! The database, its key, and the disk under them. Makes neither database nor key.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rustix::fs::statvfs;
use tokio::time::Instant;
use utmos_core::{replica::clock_off, time::Timestamp};
use utmos_server::config::Config;
use utmos_store::{JournalledStore, Looked, PostgresStore, WeeksKept};

use super::{finding::Finding, servers};
use crate::{
    environment,
    opened::{self, Database},
    time::now,
};

const GIB: u64 = 1024 * 1024 * 1024;
const FREE_WARN: u64 = GIB;
const FREE_FAIL: u64 = GIB / 10;
/// Synced writes that are timed; half of them are faster than what is told.
const SYNCS: usize = 21;
const SYNC_WARN: Duration = Duration::from_millis(20);
const SYNC_FAIL: Duration = Duration::from_millis(500);
/// Bits of a mode that let others than the owner in.
const OTHERS: u32 = 0o077;

/// Looks at store and disk.
pub async fn check(config: &Config) -> Vec<Finding> {
    let path = &config.store.path;
    let mut findings = Vec::new();
    if config.store.postgres.is_some() {
        findings.extend(postgres(config).await);
    } else if let Err(err) = opened::must_not_be_lost(config) {
        let remedy = "the ways out are in docs/recovery.md";
        findings.push(Finding::fail("store", err.to_string(), remedy));
    } else if path.exists() {
        findings.extend(permissions(config));
        findings.extend(contents(config).await);
    } else {
        let text = format!("{} is not there yet; the first start makes it", path.display());
        findings.push(Finding::ok("store", text));
    }
    let folder = nearest_folder(opened::folder_of(path));
    findings.push(free_space(folder));
    findings.push(sync_speed(folder));
    findings
}

/// PostgreSQL: whether it lets us in and could be worked on, and whether it has our schema, under our key.
async fn postgres(config: &Config) -> Vec<Finding> {
    let looked = async {
        match opened::postgres_url(config)? {
            Some(url) => Ok(Some(PostgresStore::look(&url).await?)),
            None => Ok::<_, anyhow::Error>(None),
        }
    };
    let looked = match looked.await {
        Ok(looked) => looked,
        Err(err) => {
            let text = format!("{err:#}");
            return vec![Finding::fail(
                "store",
                text,
                "what can go wrong is in docs/postgresql.md",
            )];
        }
    };
    let mut findings: Vec<Finding> = looked.iter().map(|it| judge_looked(it, config)).collect();
    findings.extend(looked.iter().filter_map(judge_weeks));
    findings.extend(with_key(config, looked.is_none_or(|it| it.schema == it.known_schema)).await);
    findings
}

fn judge_looked(looked: &Looked, config: &Config) -> Finding {
    let Looked { version, schema, known_schema, bytes, .. } = looked;
    let of = format!(
        "{} (PostgreSQL {version}, {:.1} MiB) takes writes",
        opened::name(config),
        *bytes as f64 / (1024.0 * 1024.0)
    );
    match schema {
        0 => Finding::ok("store", format!("{of}; the first start makes its tables")),
        _ if schema < known_schema => Finding::warn(
            "store",
            format!("{of}, and has schema {schema}, older than {known_schema}"),
            "the next start brings it up to date, as does: utmos store migrate; servers of an older version cannot start on it then",
        ),
        _ => Finding::ok("store", format!("{of} and has schema {schema}")),
    }
}

fn judge_weeks(looked: &Looked) -> Option<Finding> {
    let kept = looked.weeks;
    kept.are_too_many().then(|| Finding::warn("store", kept.to_string(), WeeksKept::REMEDY))
}

/// What only whoever has the key can see, where the schema is ours.
async fn with_key(config: &Config, is_ours: bool) -> Vec<Finding> {
    let key = &config.store.master_key_file;
    if !opened::has_master_key(config) {
        return vec![Finding::warn(
            "master key",
            format!("{} is not there yet", key.display()),
            "the first start makes it; where other servers have the database already, copy theirs here",
        )];
    }
    let mut findings = permissions(config);
    if !is_ours {
        return findings;
    }
    let checked = async {
        match opened::postgres(config)? {
            Some(postgres) => Ok(PostgresStore::check(&postgres).await?),
            None => Ok::<_, anyhow::Error>(()),
        }
    };
    match checked.await {
        Ok(()) => findings.extend(contents(config).await),
        Err(err) => findings.push(Finding::fail(
            "store",
            format!("{err:#}"),
            "what can go wrong is in docs/postgresql.md",
        )),
    }
    findings
}

/// Whether a server has this data: then no other can start with it. Not known is an error.
pub fn is_held(config: &Config) -> std::io::Result<bool> {
    JournalledStore::is_in_use(&opened::journal_path(config))
}

fn permissions(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let key = &config.store.master_key_file;
    let is_in_environment = environment::variable(opened::MASTER_KEY).is_some();
    match mode(key) {
        _ if is_in_environment => {
            findings.push(Finding::ok("master key", format!("taken from {}", opened::MASTER_KEY)));
        }
        None => findings.push(Finding::fail(
            "master key",
            format!("{} is missing, and the database was made with it", key.display()),
            "put the file back from its copy; without it credentials cannot be used and must be made again",
        )),
        Some(mode) if mode & OTHERS != 0 => findings.push(Finding::fail(
            "master key",
            format!("{} can be reached by other users (mode {mode:03o})", key.display()),
            format!("chmod 600 {}", key.display()),
        )),
        Some(_) => findings.push(Finding::ok("master key", format!("only its owner can read {}", key.display()))),
    }
    let database = &config.store.path;
    if config.store.postgres.is_none()
        && let Some(mode) = mode(database).filter(|mode| mode & OTHERS != 0)
    {
        findings.push(Finding::warn(
            "store",
            format!("{} can be reached by other users (mode {mode:03o})", database.display()),
            format!("chmod 600 {}", database.display()),
        ));
    }
    findings
}

async fn contents(config: &Config) -> Vec<Finding> {
    let store = match opened::store(config).await {
        Ok(store) => store,
        Err(err) => {
            return vec![Finding::fail(
                "store",
                format!("{err:#}"),
                "see above; nothing was changed",
            )];
        }
    };
    let mut findings = vec![readable(&*store).await];
    if config.store.postgres.is_none() {
        findings.push(whole(&*store).await);
    }
    findings.push(clock_against(&*store).await);
    findings.extend(clock_beside(&*store).await);
    if let Some(replicas) = store.clone().replicas() {
        findings.extend(servers::check(&*replicas, config.servers.direct).await);
    }
    store.close().await;
    findings
}

async fn readable(store: &dyn Database) -> Finding {
    let counts = async {
        Ok::<_, utmos_core::ports::StoreError>((
            store.tenants().await?.len(),
            store.credentials().await?.len(),
            store.devices().await?.len(),
        ))
    };
    match counts.await {
        Ok((0, _, _)) => Finding::warn(
            "store",
            "it opens, and has no tenant yet",
            "make one with: utmos tenant create NAME",
        ),
        Ok((tenants, credentials, devices)) => Finding::ok(
            "store",
            format!("{tenants} tenants, {credentials} credentials, {devices} devices"),
        ),
        Err(err) => Finding::fail(
            "store",
            err.to_string(),
            "look closer with: utmos store check; the ways out are in docs/recovery.md",
        ),
    }
}

async fn whole(store: &dyn Database) -> Finding {
    match store.quick_check().await {
        Ok(faults) if faults.is_empty() => {
            Finding::ok("store", "SQLite's quick check found no damage")
        }
        Ok(faults) => Finding::fail(
            "store",
            format!("damaged: {}", faults.join("; ")),
            "the ways out are in docs/recovery.md",
        ),
        Err(err) => Finding::fail(
            "store",
            err.to_string(),
            "look closer with: utmos store check; the ways out are in docs/recovery.md",
        ),
    }
}

/// A clock that was set back makes commands of before a reboot time out, and nonces last longer.
async fn clock_against(store: &dyn Database) -> Finding {
    match store.newest_record().await {
        Ok(Some(newest)) if now() < newest => Finding::fail(
            "clock",
            format!("it shows {} and the newest record is of {newest}: it was set back", now()),
            "set the clock right before the server starts",
        ),
        Ok(_) => Finding::ok("clock", "not behind the newest record"),
        Err(err) => Finding::fail(
            "store",
            err.to_string(),
            "look closer with: utmos store check; the ways out are in docs/recovery.md",
        ),
    }
}

/// Servers that share a database go by the times that each puts on record.
async fn clock_beside(store: &dyn Database) -> Option<Finding> {
    let asked = now();
    let clock = store.clock().await;
    Some(match clock {
        Ok(clock) => judge_clock(asked, clock?, now()),
        Err(err) => {
            Finding::fail("store", err.to_string(), "what can go wrong is in docs/postgresql.md")
        }
    })
}

fn judge_clock(asked: Timestamp, database: Timestamp, answered: Timestamp) -> Finding {
    match clock_off(asked, database, answered) {
        None => Finding::ok("clock", "goes with the database's"),
        Some(off) => {
            let way = if off > 0 { "ahead of" } else { "behind" };
            Finding::fail(
                "clock",
                format!("{:.3} s {way} the database's", off.unsigned_abs() as f64 / 1_000.0),
                "keep both in step (NTP): beside other servers this one takes no commands but emergencies",
            )
        }
    }
}

fn free_space(folder: &Path) -> Finding {
    match statvfs(folder) {
        Ok(disk) => judge_free(disk.f_bavail.saturating_mul(disk.f_frsize), folder),
        Err(err) => Finding::warn(
            "disk",
            format!("free space of {} is not known: {err}", folder.display()),
            "",
        ),
    }
}

fn judge_free(bytes: u64, folder: &Path) -> Finding {
    let text = format!("{:.1} GiB free at {}", bytes as f64 / GIB as f64, folder.display());
    match bytes {
        0..FREE_FAIL => {
            Finding::fail("disk", text, "free some space: without it no command can be accepted")
        }
        FREE_FAIL..FREE_WARN => Finding::warn("disk", text, "free some space soon"),
        FREE_WARN.. => Finding::ok("disk", text),
    }
}

fn sync_speed(folder: &Path) -> Finding {
    match time_syncs(folder) {
        Ok(median) => judge_sync(median),
        Err(err) => Finding::fail(
            "disk",
            format!("{} cannot be written: {err}", folder.display()),
            "make it writable for the user that runs the server",
        ),
    }
}

/// The median time of a small write that is on the disk when it returns.
fn time_syncs(folder: &Path) -> std::io::Result<Duration> {
    let path = folder.join(format!(".utmos-doctor-{}", std::process::id()));
    let timed = fs::File::create(&path).and_then(|mut file| {
        let mut times = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            let start = Instant::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times.get(SYNCS / 2).copied().unwrap_or_default())
    });
    let _best_effort = fs::remove_file(&path);
    timed
}

fn judge_sync(median: Duration) -> Finding {
    let text = format!("a synced write takes {:.1} ms", median.as_secs_f64() * 1000.0);
    let remedy = "every command waits for one: put data_dir on an SSD of this machine, not on a network share";
    if median >= SYNC_FAIL {
        Finding::fail("disk", text, remedy)
    } else if median >= SYNC_WARN {
        Finding::warn("disk", text, remedy)
    } else {
        Finding::ok("disk", text)
    }
}

fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|file| file.permissions().mode() & 0o777)
}

/// The folder itself, or the one above it in which it will be made.
fn nearest_folder(folder: &Path) -> &Path {
    let there = folder.ancestors().find(|folder| folder.is_dir());
    there.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::finding::Verdict;

    #[test]
    fn space_and_speed_are_judged() {
        let free = |bytes| judge_free(bytes, Path::new(".")).verdict;
        assert_eq!(
            (free(0), free(GIB / 2), free(GIB)),
            (Verdict::Fail, Verdict::Warn, Verdict::Ok)
        );
        let sync = |millis| judge_sync(Duration::from_millis(millis)).verdict;
        assert_eq!((sync(1), sync(20), sync(500)), (Verdict::Ok, Verdict::Warn, Verdict::Fail));
    }

    #[test]
    fn weeks_that_pile_up_are_warned_of_by_what_postgresql_can_lock() {
        let looked = |weeks, locks| {
            let version = "15".to_owned();
            Looked {
                version,
                schema: 1,
                known_schema: 1,
                bytes: 0,
                weeks: WeeksKept { weeks, locks },
            }
        };
        for (weeks, locks, is_warned) in
            [(0, 64, false), (40, 64, false), (41, 64, true), (160, 256, false), (161, 256, true)]
        {
            let found = judge_weeks(&looked(weeks, locks));
            assert_eq!(found.is_some(), is_warned, "{weeks} {locks}");
            assert!(found.is_none_or(|it| it.verdict == Verdict::Warn));
        }
    }

    #[test]
    fn a_clock_beside_the_database_s_is_judged() {
        let at = Timestamp::from_millis;
        let judge = |database| judge_clock(at(10_000), at(database), at(10_100));
        assert_eq!(judge(9_000).verdict, Verdict::Ok);
        let ahead = judge(6_500);
        assert_eq!(ahead.verdict, Verdict::Fail);
        assert!(ahead.text.contains("3.500 s ahead of the database's"), "{}", ahead.text);
        let behind = judge(14_100);
        assert_eq!(behind.verdict, Verdict::Fail);
        assert!(behind.text.contains("4.000 s behind the database's"), "{}", behind.text);
    }

    #[test]
    fn a_folder_that_is_not_there_is_judged_by_the_one_above() {
        assert_eq!(nearest_folder(Path::new("./no-such-folder/inner")), Path::new("."));
        assert_eq!(nearest_folder(Path::new("/tmp/no-such-folder/x")), Path::new("/tmp"));
    }
}
