//! The contract's cases about lists.

use std::{collections::BTreeSet, sync::Arc};

use tokio::task::JoinSet;
use utmos_core::{
    command::{Command, FailureCode, Life, Outcome, Phase, Status},
    id::CommandId,
    method::Risk,
    ports::{CommandFilter, Store},
    replica::Shard,
};
use utmos_store::UNMATCHED_PER_TENANT_MAX;

use crate::{
    contract::Place,
    given::{accepted, at, change, end, gateway, id, moved, sn, spec, tenant, unmatched},
};

pub async fn open_commands_are_those_in_need_of_care_oldest_first(place: &dyn Place) {
    let store = place.open().await;
    let mut commands = Vec::new();
    // Accepted in another order than that of their ids.
    for millis in [300, 100, 200, 400, 500] {
        commands.push(accepted(&store, spec(millis, &format!("k{millis}"))).await);
    }
    commands.sort_by_key(|command| command.spec.id);
    end(&store, &commands[1], Outcome::Failed(FailureCode::Cancelled), 600).await;
    // Ended, and its job still runs.
    let runs_on = Life {
        due: commands[2].life.due,
        ..(*moved(&commands[2].life, Phase::Ended(Outcome::Succeeded), 600)).clone()
    };
    store.advance(change(&commands[2], runs_on.clone())).await.unwrap();
    commands[2].life = runs_on.into();
    commands.remove(1);

    assert_eq!(store.open_commands(None, 10).await.unwrap(), commands);
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = place.open().await.open_commands(after, 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.spec.id);
        paged.extend(page);
    }
    assert_eq!(paged, commands);
}

pub async fn open_commands_of_some_shards_are_all_of_theirs_and_every_emergency(place: &dyn Place) {
    let store = place.open().await;
    let mut commands = Vec::new();
    for number in 0..60 {
        let mut asked = spec(1_000 - number, &format!("k{number}"));
        asked.gateway = gateway(&format!("G{}", number % 20));
        if number % 7 == 0 {
            (asked.method, asked.risk) = ("return_home".to_owned(), Risk::Emergency);
        }
        commands.push(accepted(&store, asked).await);
    }
    // The first and the last that come, and some between.
    for number in [0, 1, 20, 40, 58, 59] {
        end(&store, &commands[number], Outcome::Failed(FailureCode::Cancelled), 2_000).await;
    }
    let open = store.open_commands(None, 100).await.unwrap();
    assert_eq!(open.len(), 54);
    let shards_of = |names: &[&str]| -> BTreeSet<Shard> {
        names.iter().map(|name| Shard::of(&gateway(name))).collect()
    };
    for shards in
        [shards_of(&[]), shards_of(&["G3"]), shards_of(&["G1", "G18"]), Shard::all().collect()]
    {
        let is_wanted = |it: &&Command| {
            it.spec.risk == Risk::Emergency || shards.contains(&Shard::of(&it.spec.gateway))
        };
        let wanted: Vec<Command> = open.iter().filter(is_wanted).cloned().collect();
        for limit in [1, 4, 100] {
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = store.open_commands_of(&shards, after, limit).await.unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some(last.spec.id);
                paged.extend(page);
            }
            assert_eq!(paged, wanted, "{shards:?}");
        }
    }
}

pub async fn some_commands_are_read_at_once(place: &dyn Place) {
    let store = place.open().await;
    let mut commands = Vec::new();
    // Of two weeks.
    for millis in [100, 200, 300, 14 * 24 * 60 * 60 * 1_000] {
        commands.push(accepted(&store, spec(millis, &format!("k{millis}"))).await);
    }
    commands.remove(1);
    let ids = || commands.iter().map(|command| command.spec.id);
    let unknown = CommandId::new(uuid::Uuid::from_u128(1));
    let mut found = place.open().await.commands(ids().chain([unknown]).collect()).await.unwrap();
    found.sort_by_key(|command| command.spec.id);
    commands.sort_by_key(|command| command.spec.id);
    assert_eq!(found, commands);
    assert_eq!(store.commands(Vec::new()).await.unwrap(), []);
}

pub async fn a_tenants_commands_come_newest_first_in_pages(place: &dyn Place) {
    let store = place.open().await;
    let mut commands = Vec::new();
    for millis in [300, 100, 200, 400, 500, 600, 700] {
        let mut mine = spec(millis, &format!("k{millis}"));
        mine.device = sn(&format!("D{}", millis % 3));
        commands.push(accepted(&store, mine).await);
        let mut foreign = spec(millis + 1, &format!("k{millis}"));
        foreign.tenant = tenant(2);
        accepted(&store, foreign).await;
    }
    commands.sort_by_key(|command| std::cmp::Reverse(command.spec.id));
    let both = BTreeSet::from([sn("D0"), sn("D1"), sn("D2")]);
    for devices in [None, Some(both)] {
        let filter = CommandFilter { devices, ..CommandFilter::default() };
        let mut paged: Vec<Command> = Vec::new();
        loop {
            let before = paged.last().map(|last| last.spec.id);
            let page = store.commands_of(tenant(1), filter.clone(), before, 3).await.unwrap();
            assert!(page.len() <= 3);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, commands);
    }
    assert!(
        store.commands_of(tenant(3), CommandFilter::default(), None, 10).await.unwrap().is_empty()
    );
    assert!(
        store.commands_of(tenant(1), CommandFilter::default(), None, 0).await.unwrap().is_empty()
    );
}

/// Four devices' commands, accepted in another order than that of their ids, far more than are sorted at once.
pub async fn many_accepted(store: &Arc<dyn Store>) -> Vec<Command> {
    let mut all = Vec::new();
    for chunk in 0..20 {
        let mut writing = JoinSet::new();
        for one in 0..64 {
            let (store, number) = (store.clone(), chunk * 64 + (one * 37) % 64);
            writing.spawn(async move {
                let mut spec = spec(i64::from(number), &format!("k{number}"));
                spec.device = sn(&format!("D{}", number % 4));
                accepted(&store, spec).await
            });
        }
        all.extend(writing.join_all().await);
    }
    all.sort_by_key(|command| std::cmp::Reverse(command.spec.id));
    all
}

/// All that a filter finds, in pages.
pub async fn listed(store: &Arc<dyn Store>, filter: &CommandFilter) -> Vec<Command> {
    let mut all: Vec<Command> = Vec::new();
    loop {
        let before = all.last().map(|last| last.spec.id);
        let page = store.commands_of(tenant(1), filter.clone(), before, 100).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

pub async fn lists_come_newest_first_however_many_commands_there_are(place: &dyn Place) {
    let store = place.open().await;
    let all = many_accepted(&store).await;
    let of = |names: &[&str]| {
        let is_meant = |command: &&Command| names.contains(&command.spec.device.as_str());
        all.iter().filter(is_meant).cloned().collect::<Vec<_>>()
    };
    assert_eq!(listed(&store, &CommandFilter::default()).await, all);
    let of_one = CommandFilter { device: Some(sn("D1")), ..CommandFilter::default() };
    assert_eq!(listed(&store, &of_one).await, of(&["D1"]));
    let devices = Some(BTreeSet::from([sn("D0"), sn("D3"), sn("D7")]));
    let of_some = CommandFilter { devices, ..CommandFilter::default() };
    assert_eq!(listed(&store, &of_some).await, of(&["D0", "D3"]));
    let none = CommandFilter { devices: Some(BTreeSet::new()), ..CommandFilter::default() };
    assert_eq!(listed(&store, &none).await, []);
    let (after, before) = (Some(at(300)), Some(at(1_270)));
    let of_a_time =
        CommandFilter { accepted_after: after, accepted_before: before, ..of_one.clone() };
    let mut expected = of(&["D1"]);
    expected.retain(|one| (at(300)..at(1_270)).contains(&one.spec.accepted_at));
    assert_eq!(listed(&store, &of_a_time).await, expected);
}

/// Through a second store at the same place as well.
pub async fn lists_by_state_hold_all_of_it_however_many_commands_there_are(place: &dyn Place) {
    let store = place.open().await;
    let all = many_accepted(&store).await;
    let mut ending = JoinSet::new();
    for (number, command) in all.into_iter().enumerate() {
        let store = store.clone();
        ending.spawn(async move {
            match number % 3 {
                0 => command,
                1 => end(&store, &command, Outcome::Succeeded, 9_000).await,
                _ => end(&store, &command, Outcome::Failed(FailureCode::Cancelled), 9_000).await,
            }
        });
    }
    let mut all = ending.join_all().await;
    all.sort_by_key(|command| std::cmp::Reverse(command.spec.id));
    let some = BTreeSet::from([sn("D0"), sn("D3"), sn("D7")]);
    for store in [store, place.open().await] {
        for status in [Status::Accepted, Status::Succeeded, Status::Failed, Status::Delivered] {
            for (device, devices) in
                [(None, None), (Some(sn("D1")), None), (None, Some(some.clone()))]
            {
                let filter = CommandFilter {
                    status: Some(status),
                    device: device.clone(),
                    devices: devices.clone(),
                    ..CommandFilter::default()
                };
                let is_meant = |command: &&Command| {
                    command.life.status() == status
                        && device.as_ref().is_none_or(|device| *device == command.spec.device)
                        && devices.as_ref().is_none_or(|all| all.contains(&command.spec.device))
                };
                let expected: Vec<Command> = all.iter().filter(is_meant).cloned().collect();
                assert_eq!(listed(&store, &filter).await, expected, "{filter:?}");
            }
        }
    }
}

/// Far more than a page looks at, most of them of one device.
async fn far_more_than_a_page_looks_at(store: &Arc<dyn Store>) -> Vec<Command> {
    let mut all = Vec::new();
    for chunk in 0..45_u32 {
        let mut writing = JoinSet::new();
        for number in chunk * 64..(chunk + 1) * 64 {
            let store = store.clone();
            writing.spawn(async move {
                let mut spec = spec(i64::from(number), &format!("k{number}"));
                let device = if number % 16 == 0 { number / 16 % 4 } else { 1 };
                spec.device = sn(&format!("D{device}"));
                spec.method = if number % 97 == 0 { "rare" } else { "cover_open" }.to_owned();
                let command = accepted(&store, spec).await;
                match number % 20 {
                    0..8 => command,
                    8 => end(&store, &command, Outcome::Succeeded, 9_000).await,
                    9 => end(&store, &command, Outcome::Delivered, 9_000).await,
                    _ => {
                        end(&store, &command, Outcome::Failed(FailureCode::Cancelled), 9_000).await
                    }
                }
            });
        }
        all.extend(writing.join_all().await);
    }
    all.sort_by_key(|command| std::cmp::Reverse(command.spec.id));
    all
}

/// All pages of a list as a caller gets them, who goes on where each says so.
async fn pages(store: &Arc<dyn Store>, filter: &CommandFilter) -> Vec<Vec<Command>> {
    const LIMIT: usize = 500;
    let (mut before, mut pages) = (None, Vec::new());
    loop {
        let down_to = store.list_floor(tenant(1), filter.clone(), before).await.unwrap();
        assert!(down_to.is_none() || before.is_none_or(|before| down_to < Some(before)));
        let of_page = CommandFilter { down_to, ..filter.clone() };
        let page = store.commands_of(tenant(1), of_page, before, LIMIT).await.unwrap();
        let is_full = page.len() == LIMIT;
        before = if is_full { page.last().map(|last| last.spec.id) } else { down_to };
        pages.push(page);
        if before.is_none() {
            return pages;
        }
    }
}

pub async fn a_page_looks_at_so_many_and_the_next_goes_on_there(place: &dyn Place) {
    let store = place.open().await;
    let all = far_more_than_a_page_looks_at(&store).await;
    let set = |names: &[&str]| Some(names.iter().map(|name| sn(name)).collect::<BTreeSet<_>>());
    let devices = [(None, None), (Some(sn("D1")), None), (None, set(&["D1", "D2", "D7"]))];
    let statuses = [None].into_iter().chain(Status::ALL.map(Some));
    for (status, (device, devices)) in
        statuses.flat_map(|status| devices.clone().map(|of| (status, of)))
    {
        for method in [None, Some("rare"), Some("absent")] {
            for (from, until) in [(None, None), (Some(at(700)), Some(at(750)))] {
                let filter = CommandFilter {
                    status,
                    device: device.clone(),
                    devices: devices.clone(),
                    method: method.map(str::to_owned),
                    accepted_after: from,
                    accepted_before: until,
                    down_to: None,
                };
                let is_of = |command: &&Command| {
                    let spec = &command.spec;
                    device.as_ref().is_none_or(|device| *device == spec.device)
                        && devices.as_ref().is_none_or(|all| all.contains(&spec.device))
                };
                let is_meant = |command: &&Command| {
                    let spec = &command.spec;
                    status.is_none_or(|status| status == command.life.status())
                        && method.is_none_or(|method| method == spec.method)
                        && from.is_none_or(|from| from <= spec.accepted_at)
                        && until.is_none_or(|until| spec.accepted_at < until)
                };
                let found = pages(&store, &filter).await;
                let expected: Vec<Command> =
                    all.iter().filter(is_of).filter(is_meant).cloned().collect();
                let is_bounded = found.len() > 1;
                assert_eq!(found.concat(), expected, "{filter:?}");
                // Ends that few of these came to have an order of their own, of which there is little.
                let looks_far = match status {
                    None | Some(Status::Accepted | Status::Succeeded) => true,
                    Some(Status::Failed) => true,
                    Some(Status::Delivered | Status::TimedOut | Status::UnmatchedResponse) => false,
                };
                let is_absent = method == Some("absent") && from.is_none();
                assert!(!(looks_far && is_absent) || is_bounded, "{filter:?}");
            }
        }
    }
    let any = CommandFilter::default();
    assert_eq!(store.list_floor(tenant(1), any, None).await.unwrap(), None, "each is found");
    let absent = CommandFilter { method: Some("absent".to_owned()), ..CommandFilter::default() };
    assert_eq!(store.list_floor(tenant(3), absent, None).await.unwrap(), None, "it has none");
}

pub async fn commands_are_filtered(place: &dyn Place) {
    const DAY: i64 = 24 * 3600 * 1000;
    let store = place.open().await;
    let mut all = Vec::new();
    for (days, device, method) in [
        (0, "D1", "cover_open"),
        (1, "D2", "cover_open"),
        (2, "D1", "cover_close"),
        (3, "D3", "cover_open"),
        (4, "D1", "cover_open"),
    ] {
        let mut one = spec(days * DAY, &format!("k{days}"));
        one.device = sn(device);
        one.gateway = gateway(device);
        one.method = method.to_owned();
        all.push(accepted(&store, one).await);
    }
    end(&store, &all[0], Outcome::Failed(FailureCode::Cancelled), 5 * DAY).await;
    end(&store, &all[1], Outcome::Delivered, 5 * DAY).await;
    let delivered = moved(&all[2].life, Phase::Delivered, 5 * DAY);
    store.advance(change(&all[2], delivered)).await.unwrap();
    let sending = moved(&all[3].life, Phase::Sending, 5 * DAY);
    store.advance(change(&all[3], sending)).await.unwrap();

    let none = CommandFilter::default;
    let set = |sns: &[&str]| Some(sns.iter().map(|text| sn(text)).collect::<BTreeSet<_>>());
    let cases: Vec<(CommandFilter, &[i64])> = vec![
        (none(), &[4, 3, 2, 1, 0]),
        (CommandFilter { device: Some(sn("D1")), ..none() }, &[4, 2, 0]),
        (CommandFilter { device: Some(sn("D9")), ..none() }, &[]),
        (CommandFilter { method: Some("cover_close".to_owned()), ..none() }, &[2]),
        (CommandFilter { status: Some(Status::Accepted), ..none() }, &[4, 3]),
        (CommandFilter { status: Some(Status::Delivered), ..none() }, &[2, 1]),
        (CommandFilter { status: Some(Status::Failed), ..none() }, &[0]),
        (CommandFilter { status: Some(Status::TimedOut), ..none() }, &[]),
        (CommandFilter { status: Some(Status::Accepted), device: Some(sn("D1")), ..none() }, &[4]),
        (CommandFilter { accepted_after: Some(at(2 * DAY)), ..none() }, &[4, 3, 2]),
        (CommandFilter { accepted_after: Some(at(2 * DAY + 1)), ..none() }, &[4, 3]),
        (CommandFilter { accepted_before: Some(at(2 * DAY)), ..none() }, &[1, 0]),
        (
            CommandFilter {
                accepted_after: Some(at(DAY)),
                accepted_before: Some(at(3 * DAY)),
                ..none()
            },
            &[2, 1],
        ),
        (
            CommandFilter {
                status: Some(Status::Accepted),
                accepted_before: Some(at(4 * DAY)),
                ..none()
            },
            &[3],
        ),
        (
            CommandFilter { accepted_after: Some(at(-2 * super::given::START)), ..none() },
            &[4, 3, 2, 1, 0],
        ),
        (CommandFilter { devices: set(&["D2", "D3"]), ..none() }, &[3, 1]),
        (CommandFilter { devices: set(&[]), ..none() }, &[]),
        (CommandFilter { devices: set(&["D2"]), device: Some(sn("D1")), ..none() }, &[]),
        (CommandFilter { devices: set(&["D1"]), device: Some(sn("D1")), ..none() }, &[4, 2, 0]),
        (
            CommandFilter {
                devices: set(&["D1", "D2"]),
                method: Some("cover_open".to_owned()),
                accepted_after: Some(at(1)),
                ..none()
            },
            &[4, 1],
        ),
    ];
    for (filter, expected) in cases {
        let found = store.commands_of(tenant(1), filter.clone(), None, 10).await.unwrap();
        let days: Vec<_> = found
            .iter()
            .map(|command| (command.spec.accepted_at.as_millis() - at(0).as_millis()) / DAY)
            .collect();
        assert_eq!(days, expected, "{filter:?}");
        let before = Some(all[2].spec.id);
        let found = store.commands_of(tenant(1), filter.clone(), before, 10).await.unwrap();
        let expected: Vec<_> = expected.iter().filter(|day| **day < 2).collect();
        assert_eq!(found.len(), expected.len(), "{filter:?} before the third");
    }
}

pub async fn what_ended_as_few_do_is_listed_once_and_for_its_tenant(place: &dyn Place) {
    let store = place.open().await;
    let outcomes = [
        (Outcome::Delivered, Status::Delivered),
        (Outcome::Failed(FailureCode::DeviceExecutionFailed), Status::Failed),
        (Outcome::TimedOut(FailureCode::NoResponse), Status::TimedOut),
        (Outcome::Unmatched, Status::UnmatchedResponse),
    ];
    for (number, (outcome, status)) in (0..).zip(outcomes) {
        let mut foreign = spec(number * 100, &format!("k{number}"));
        foreign.tenant = tenant(2);
        let foreign = accepted(&store, foreign).await;
        end(&store, &foreign, outcome, 1000).await;
        let command = accepted(&store, spec(number * 100 + 1, &format!("k{number}"))).await;
        // Ended, and its job still runs: it is open as well.
        let runs_on = Life {
            due: command.life.due,
            ..(*moved(&command.life, Phase::Ended(outcome), 1000)).clone()
        };
        store.advance(change(&command, runs_on)).await.unwrap();
        let filter = CommandFilter { status: Some(status), ..CommandFilter::default() };
        for (tenant, expected) in [(tenant(1), command.spec.id), (tenant(2), foreign.spec.id)] {
            let found = store.commands_of(tenant, filter.clone(), None, 10).await.unwrap();
            let found: Vec<_> = found.iter().map(|command| command.spec.id).collect();
            assert_eq!(found, [expected], "{status:?}");
        }
    }
}

pub async fn a_command_is_shown_to_its_tenant_alone(place: &dyn Place) {
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let id: CommandId = command.spec.id;
    assert_eq!(store.command_of(tenant(1), id).await.unwrap(), Some(command));
    assert_eq!(store.command_of(tenant(2), id).await.unwrap(), None);
    assert!(
        store.commands_of(tenant(2), CommandFilter::default(), None, 10).await.unwrap().is_empty()
    );
}

pub async fn only_the_newest_unmatched_messages_are_kept(place: &dyn Place) {
    let store = place.open().await;
    let max = u64::from(UNMATCHED_PER_TENANT_MAX);
    keep(&*store, unmatched(5, Some(tenant(2)))).await;
    for number in 100..max + 103 {
        keep(&*store, unmatched(number, Some(tenant(1)))).await;
        keep(&*store, unmatched(number, None)).await;
    }
    // Older than everything that is kept: no place for it.
    keep(&*store, unmatched(50, Some(tenant(1)))).await;
    let kept = place.open().await.unmatched_of(Some(tenant(1)), None, 2000).await.unwrap();
    let expected: Vec<_> =
        (103..max + 103).rev().map(|number| unmatched(number, Some(tenant(1)))).collect();
    assert_eq!(kept.len(), expected.len());
    assert_eq!(kept, expected);
    assert_eq!(
        store.unmatched_of(Some(tenant(2)), None, 10).await.unwrap(),
        [unmatched(5, Some(tenant(2)))]
    );
    let nobodys: Vec<_> = (103..max + 103).rev().map(|number| unmatched(number, None)).collect();
    assert_eq!(store.unmatched_of(None, None, 2000).await.unwrap(), nobodys);
}

async fn keep(store: &dyn Store, message: utmos_core::ports::Unmatched) {
    store.keep_unmatched(message).await.unwrap();
}

pub async fn unmatched_messages_come_in_pages_and_once(place: &dyn Place) {
    let store = place.open().await;
    for number in [3, 1, 2, 2] {
        keep(&*store, unmatched(number, Some(tenant(1)))).await;
    }
    keep(&*store, unmatched(4, None)).await;
    let first = store.unmatched_of(Some(tenant(1)), None, 2).await.unwrap();
    assert_eq!(first.iter().map(|message| message.id).collect::<Vec<_>>(), [id(3, 1), id(2, 1)]);
    let rest = store.unmatched_of(Some(tenant(1)), Some(first[1].id), 2).await.unwrap();
    assert_eq!(rest, [unmatched(1, Some(tenant(1)))]);
    assert_eq!(store.unmatched_of(None, None, 2).await.unwrap(), [unmatched(4, None)]);
    assert_eq!(store.newest_record().await.unwrap(), Some(at(4)));
}
