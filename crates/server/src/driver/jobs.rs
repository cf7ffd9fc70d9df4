//! Which command an event of a job is of. Pure.

use utmos_core::{
    command::{Command, Phase},
    method::CompletesBy,
    reply::Progress,
    time::Timestamp,
};

/// The one of these commands that an event is of: by its `bid`, then by the job's own id, then by its method, where it can be
/// of one only (LIFECYCLE.md, "job"). One that was heard some time ago, `then`, and names nothing, is of no command that was
/// accepted after it, by the clock of deadlines.
pub(super) fn owner<'a>(
    commands: impl IntoIterator<Item = &'a Command>,
    progress: &Progress,
    then: Option<Timestamp>,
) -> Option<&'a Command> {
    let may_be = |command: &&Command| may_be_of(command, progress);
    let jobs: Vec<&Command> = commands.into_iter().filter(may_be).collect();
    let by_bid = |command: &&Command| {
        let bid = progress.bid.as_deref().and_then(|bid| uuid::Uuid::parse_str(bid).ok());
        bid == Some(command.spec.bid.uuid())
    };
    let by_ref =
        |command: &&Command| progress.job_ref.is_some() && progress.job_ref == command.spec.job_ref;
    // A bid of our making names another command than these, one that has ended: its events are not theirs.
    let names_another = progress.bid.as_deref().is_some_and(is_bid_of_ours);
    let is_nameless = |command: &&Command| {
        (progress.job_ref.is_none() || command.spec.job_ref.is_none()) && !names_another
    };
    let was_there = |command: &&Command| {
        let accepted_at = command.spec.deadline.set_at(command.spec.timeout);
        then.is_none_or(|then| accepted_at < then)
    };
    let find = |is_it: &dyn Fn(&&Command) -> bool| jobs.iter().copied().find(is_it);
    find(&by_bid).or_else(|| find(&by_ref)).or_else(|| match jobs.as_slice() {
        [only] => Some(*only).filter(is_nameless).filter(was_there),
        _ => None,
    })
}

/// Whether an event may be of a command at all: of a fitting method, possibly sent, and not known to be over.
fn may_be_of(command: &Command, progress: &Progress) -> bool {
    let is_job = match command.spec.completes_by {
        CompletesBy::Job | CompletesBy::ReplyOrJob => true,
        CompletesBy::Reply | CompletesBy::DrcAck | CompletesBy::NoReply => false,
    };
    let is_over = command.life.execution.as_ref().is_some_and(|execution| !execution.open);
    is_job
        && !is_over
        && command.life.phase != Phase::Waiting
        && command.spec.gateway == progress.gateway
        && progress.command_methods.contains(&command.spec.method)
}

/// Bids of ours are UUIDs of version 7; devices that make their own use others.
fn is_bid_of_ours(bid: &str) -> bool {
    uuid::Uuid::parse_str(bid).is_ok_and(|bid| bid.get_version_num() == 7)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::Arc;

    use utmos_core::{
        command::{Execution, Life, Spec},
        method::Risk,
        reply::JobState,
    };

    use super::*;
    use crate::driver::doubt::tests::command;

    /// A job that is under way, accepted at this time.
    fn job(number: usize, accepted_at: i64, change: impl Fn(&mut Spec)) -> Command {
        let (_, mut job) = command(number, Risk::Ground);
        let mut spec = (*job.spec).clone();
        spec.completes_by = CompletesBy::Job;
        spec.method = "cover_open".to_owned();
        spec.bid = utmos_core::id::Bid::new(job.spec.id.uuid());
        spec.deadline.wall = Timestamp::from_millis(accepted_at).plus(spec.timeout);
        change(&mut spec);
        job.spec = Arc::new(spec);
        Arc::make_mut(&mut job.life).phase = Phase::Delivered;
        job
    }

    fn event(of: &Command, bid: Option<String>, job_ref: Option<&str>) -> Progress {
        Progress {
            gateway: of.spec.gateway.clone(),
            event_method: "cover_open".to_owned(),
            command_methods: vec!["cover_open".to_owned()],
            bid,
            job_ref: job_ref.map(str::to_owned),
            state: JobState::Succeeded,
            state_word: "ok".to_owned(),
            step: None,
            percent: None,
            code: None,
            message: None,
            data: "{}".into(),
        }
    }

    fn bid(of: &Command) -> Option<String> {
        Some(of.spec.bid.uuid().to_string())
    }

    #[test]
    fn an_event_is_of_the_job_it_names_and_else_of_the_only_one() {
        let named = |spec: &mut Spec| spec.job_ref = Some("flight-2".to_owned());
        let jobs = [job(1, 0, |_| {}), job(2, 0, named)];
        let owner = |jobs: &[Command], event: &Progress| {
            owner(jobs, event, None).map(|command| command.spec.id)
        };
        let [one, two] = [jobs[0].spec.id, jobs[1].spec.id];
        for (number, job) in jobs.iter().enumerate() {
            assert_eq!(owner(&jobs, &event(job, bid(job), None)), Some([one, two][number]));
        }
        let by_ref = event(&jobs[0], Some("own".to_owned()), Some("flight-2"));
        assert_eq!(owner(&jobs, &by_ref), Some(two));
        let nameless = event(&jobs[0], None, None);
        assert_eq!(owner(&jobs, &nameless), None, "of either");
        assert_eq!(owner(&jobs[..1], &nameless), Some(one));
        let of_another_flight = event(&jobs[0], None, Some("flight-3"));
        assert_eq!(owner(&jobs[1..], &of_another_flight), None);
        let ended = "01a21e0f-4ea8-7486-a41e-6d49073cf32a".to_owned();
        assert_eq!(owner(&jobs[..1], &event(&jobs[0], Some(ended), None)), None, "of one before");
    }

    #[test]
    fn an_event_is_of_no_command_that_cannot_have_begun_or_is_over() {
        let fitting = job(1, 0, |_| {});
        let event = event(&fitting, bid(&fitting), None);
        assert!(owner([&fitting], &event, None).is_some());
        let waits = Command {
            life: Arc::new(Life { phase: Phase::Waiting, ..(*fitting.life).clone() }),
            ..fitting.clone()
        };
        let execution = Execution {
            state: "ok".to_owned(),
            open: false,
            step: None,
            percent: None,
            updated_at: Timestamp::from_millis(0),
            ext: None,
        };
        let life = Life { execution: Some(execution), ..(*fitting.life).clone() };
        let over = Command { life: Arc::new(life), ..fitting.clone() };
        let other = utmos_core::id::DeviceSn::parse("DOCK-OTHER").unwrap().to_gateway();
        let elsewhere = job(1, 0, |spec| spec.gateway = other.clone());
        let answered = job(1, 0, |spec| spec.completes_by = CompletesBy::Reply);
        let closes = job(1, 0, |spec| spec.method = "cover_close".to_owned());
        for command in [waits, over, elsewhere, answered, closes] {
            assert_eq!(owner([&command], &event, None), None, "{command:?}");
        }
    }

    /// The end of a job before it, of which somebody hears when the next one is under way already.
    #[test]
    fn what_was_heard_before_a_command_was_accepted_is_its_own_only_by_name() {
        let next = job(1, 5_000, |_| {});
        let at = |millis| Some(Timestamp::from_millis(millis));
        let nameless = event(&next, None, None);
        assert_eq!(owner([&next], &nameless, at(4_000)), None);
        assert_eq!(owner([&next], &nameless, at(5_000)), None);
        assert!(owner([&next], &nameless, at(5_001)).is_some());
        let named = event(&next, bid(&next), None);
        assert!(owner([&next], &named, at(4_000)).is_some(), "clocks may differ, names do not");
    }
}
