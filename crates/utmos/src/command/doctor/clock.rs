//! The clock: signatures depend on it, and deadlines after a reboot.

use std::{path::Path, process::Command};

use utmos_core::time::Timestamp;

use super::finding::Finding;
use crate::time::now;

/// No clock that is right shows less: this program was not written before.
const EARLIEST: Timestamp = Timestamp::from_millis(1_760_000_000_000);
/// No clock that is right shows more, for the life of this program.
const LATEST: Timestamp = Timestamp::from_millis(4_102_444_800_000);
/// Where systemd's own time service says that it is in step.
const TIMESYNC_FILE: &str = "/run/systemd/timesync/synchronized";

const REMEDY: &str = "run a time service on this machine, such as chrony (apt install chrony)";

/// Looks at the clock.
pub fn check() -> Vec<Finding> {
    vec![sane(now()), synchronised(ask_the_system())]
}

fn sane(now: Timestamp) -> Finding {
    if now < EARLIEST || LATEST < now {
        return Finding::fail("clock", format!("it shows {now}, which cannot be"), REMEDY);
    }
    Finding::ok("clock", format!("it shows {now}"))
}

fn synchronised(state: Option<bool>) -> Finding {
    match state {
        Some(true) => Finding::ok("clock", "in step with a time server"),
        Some(false) => Finding::warn("clock", "not in step with a time server", REMEDY),
        None => Finding::warn(
            "clock",
            "nothing on this machine tells whether it is in step with a time server",
            "in a container the host's clock counts: check it there; elsewhere run chrony or systemd-timesyncd",
        ),
    }
}

/// Whatever time service is there tells.
fn ask_the_system() -> Option<bool> {
    if Path::new(TIMESYNC_FILE).exists() {
        return Some(true);
    }
    let by_systemd = answer("timedatectl", &["show", "--property=NTPSynchronized", "--value"])
        .and_then(|said| match said.trim() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        });
    by_systemd
        .or_else(|| answer("chronyc", &["-n", "tracking"]).and_then(|said| leap_status(&said)))
        .or_else(|| answer("adjtimex", &["--print"]).and_then(|said| kernel_status(&said)))
}

fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn leap_status(tracking: &str) -> Option<bool> {
    let line = tracking.lines().find(|line| line.starts_with("Leap status"))?;
    Some(!line.contains("Not synchronised"))
}

/// Bit 0x40 of the kernel's status word says that the clock is not synchronised.
fn kernel_status(printed: &str) -> Option<bool> {
    let line = printed.lines().find(|line| line.trim_start().starts_with("status:"))?;
    let status: u32 = line.split(':').nth(1)?.trim().parse().ok()?;
    Some(status & 0x40 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::finding::Verdict;

    #[test]
    fn a_clock_at_the_epoch_fails() {
        assert_eq!(sane(Timestamp::from_millis(0)).verdict, Verdict::Fail);
        assert_eq!(sane(Timestamp::from_millis(1_800_000_000_000)).verdict, Verdict::Ok);
        assert_eq!(sane(Timestamp::from_millis(i64::MAX)).verdict, Verdict::Fail);
    }

    #[test]
    fn time_services_are_understood() {
        assert_eq!(leap_status("Ref: x\nLeap status     : Normal\n"), Some(true));
        assert_eq!(leap_status("Leap status     : Not synchronised\n"), Some(false));
        assert_eq!(leap_status("506 Cannot talk to daemon"), None);
        assert_eq!(kernel_status("   status: 8256\n"), Some(false));
        assert_eq!(kernel_status("         mode: 0\n       status: 8193\n"), Some(true));
        assert_eq!(synchronised(None).verdict, Verdict::Warn);
    }
}
