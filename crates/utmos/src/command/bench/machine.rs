//! What Linux tells of processes and processors.

use std::{path::Path, time::Duration};

use anyhow::Context;

/// Ticks of `/proc` in a second: USER_HZ, which is 100 on every Linux this runs on.
const TICKS: u64 = 100;

/// Processor time a process has used, in its own code and in the system's.
pub fn cpu_of(id: u32) -> anyhow::Result<Duration> {
    let file = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
    parse_cpu(&text).with_context(|| format!("{file} reads differently than expected"))
}

/// The name of the program may hold anything, but is the last thing in brackets.
fn parse_cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(of_ticks(user + system))
}

/// Processor time that a process has used with all that it has begun, those that have ended included.
pub fn cpu_of_all(id: u32) -> anyhow::Result<Duration> {
    // One that ends meanwhile is counted by whoever waited for it, at the next look.
    Ok(of_ticks(ticks_of_all(id, &everybody()?)))
}

/// All processes there are.
fn everybody() -> anyhow::Result<Vec<Kin>> {
    let mut stats = Vec::new();
    for entry in std::fs::read_dir("/proc").context("/proc cannot be read")? {
        let stat = entry.ok().and_then(|it| std::fs::read_to_string(it.path().join("stat")).ok());
        stats.extend(stat.as_deref().and_then(Kin::parse));
    }
    Ok(stats)
}

/// A process, who began it, and what both it and those it waited for have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kin {
    id: u32,
    parent: u32,
    ticks: u64,
}

impl Kin {
    fn parse(stat: &str) -> Option<Self> {
        let (head, fields) = stat.rsplit_once(')')?;
        let id = head.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let parent = fields.get(1)?.parse().ok()?;
        let used: Option<Vec<u64>> =
            fields.get(11..15)?.iter().map(|field| field.parse().ok()).collect();
        Some(Self { id, parent, ticks: used?.iter().sum() })
    }
}

fn ticks_of_all(root: u32, all: &[Kin]) -> u64 {
    family(root, all).map(|kin| kin.ticks).sum()
}

/// A process and all that it has begun.
fn family(root: u32, all: &[Kin]) -> impl Iterator<Item = &Kin> {
    let (mut members, mut to_do) = (Vec::new(), vec![root]);
    while let Some(id) = to_do.pop() {
        members.extend(all.iter().filter(|kin| kin.id == id));
        to_do.extend(all.iter().filter(|kin| kin.parent == id && kin.id != id).map(|kin| kin.id));
    }
    members.into_iter()
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * (1_000 / TICKS))
}

/// Bytes a process has caused to be written to the disk.
pub fn written_by(id: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{id}/io");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
    bytes.with_context(|| format!("{file} has no write_bytes"))
}

/// The same of a process with all that it has begun and that are still there.
pub fn written_by_all(id: u32) -> anyhow::Result<u64> {
    let everybody = everybody()?;
    // One that has ended meanwhile has taken its count along.
    Ok(family(id, &everybody).filter_map(|kin| written_by(kin.id).ok()).sum())
}

/// Whether a folder is on no disk.
pub fn is_in_memory(folder: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    rustix::fs::statfs(folder).is_ok_and(|it| [TMPFS, RAMFS].contains(&(it.f_type as u64)))
}

/// Resident memory of a process in MB.
pub fn resident_mb(id: u32) -> anyhow::Result<f64> {
    let file = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: Option<f64> = line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
    Ok(kib.with_context(|| format!("{file} has no VmRSS"))? / 1024.0)
}

/// How busy the machine's processors were up to now.
pub struct Busy {
    all: Duration,
    idle: Duration,
    own: Duration,
}

impl Busy {
    pub fn read() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("/proc/stat cannot be read")?;
        let (all, idle) =
            parse_busy(&text).context("/proc/stat reads differently than expected")?;
        Ok(Self { all, idle, own: cpu_of(std::process::id())? })
    }

    /// Since `before`: the processor time we have used ourselves, and the share of all processor time that went neither
    /// to us, nor to the server, nor to nobody, from 0 to 1. `server` is what the server has used in that time.
    pub fn since(&self, before: &Self, server: Duration) -> (Duration, f64) {
        let all = self.all.saturating_sub(before.all);
        let idle = self.idle.saturating_sub(before.idle);
        let own = self.own.saturating_sub(before.own);
        let others = all.saturating_sub(idle).saturating_sub(own).saturating_sub(server);
        (own, if all.is_zero() { 0.0 } else { others.as_secs_f64() / all.as_secs_f64() })
    }
}

/// All time and idle time of all processors: user, nice, system, idle, iowait, irq, softirq, steal.
fn parse_busy(stat: &str) -> Option<(Duration, Duration)> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
    let [_, _, _, idle, waiting, ..] = ticks.as_slice() else { return None };
    Some((of_ticks(ticks.iter().sum()), of_ticks(idle + waiting)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 1";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu("7 (x) S 1"), None);
    }

    #[test]
    fn a_process_counts_with_all_that_it_has_begun() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 3 4 20 0 3 0 1";
        assert_eq!(Kin::parse(stat), Some(Kin { id: 7, parent: 1, ticks: 207 }));
        assert_eq!(Kin::parse("7 (x) S 1"), None);
        let kin = |id, parent, ticks| Kin { id, parent, ticks };
        let all = [kin(0, 0, 1), kin(7, 1, 10), kin(8, 7, 20), kin(9, 8, 40), kin(10, 1, 80)];
        assert_eq!(ticks_of_all(7, &all), 70);
        assert_eq!(ticks_of_all(99, &all), 0);
    }

    #[test]
    fn waiting_for_the_disk_is_idle_time() {
        let stat = "cpu  100 0 100 200 100 0 0 0 9 9\ncpu0 1 2";
        assert_eq!(parse_busy(stat), Some((Duration::from_secs(5), Duration::from_secs(3))));
    }
}
