//! `GET /api/v1/open/downlink/commands/{command_id}`

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{RawQuery, State},
};
use utmos_core::{
    command::{Command, StatusVersion},
    credential::Permission,
    id::CommandId,
    signing::Caller,
};

use super::{
    App,
    problem::{Code, Problem, ProblemBody},
    query::{InPath, Query, between},
    signed::Signed,
    view::CommandView,
};
use crate::driver::WaitsFor;

/// Longest wait for a change, in seconds.
const WAIT_SECONDS_MAX: usize = 60;

/// Tells how a command stands. With `wait`, the answer is held until it changes or ends.
#[utoipa::path(
    get,
    path = "/api/v1/open/downlink/commands/{command_id}",
    tag = "commands",
    operation_id = "getCommand",
    params(
        ("command_id" = String, Path, description = "From the answer to its creation", format = "uuid"),
        ("wait" = Option<u32>, Query, description = "Hold the answer for 1 to 60 s until the status version passes `after_version` or the command ends; without `after_version`, until it ends", minimum = 1, maximum = 60),
        ("after_version" = Option<u64>, Query, description = "The `status_version` already seen"),
    ),
    responses(
        (status = 200, description = "The command", body = CommandView),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:command:read")))
)]
pub async fn get_command(
    State(app): State<Arc<App>>,
    InPath(id): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<CommandView>, Problem> {
    let asked = Asked::read(query.as_deref());
    let waits = asked.as_ref().is_ok_and(|asked| asked.patience.is_some());
    let work = async |caller| {
        let Asked { patience, after } = asked?;
        let id = parse_id(&id)?;
        let command = match patience {
            None => find(&app, &caller, id).await?,
            Some(patience) => changed(&app, &caller, id, after, patience).await?,
        };
        Ok(Json(CommandView::of(&command, &app.catalogue)))
    };
    match waits {
        true => signed.waiting(&app, Permission::CommandRead, work).await,
        false => signed.reading(&app, Permission::CommandRead, work).await,
    }
}

/// What the query asks for.
struct Asked {
    /// How long the answer may be held.
    patience: Option<Duration>,
    /// What the caller has seen.
    after: Option<StatusVersion>,
}

impl Asked {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut query = Query::read(query, &["wait", "after_version"]);
        let wait = query.take(
            "wait",
            "a whole number of seconds from 1 to 60",
            between(1, WAIT_SECONDS_MAX),
        );
        let after = query
            .take("after_version", "a status_version", |text| text.parse().ok().map(StatusVersion));
        query.finish()?;
        Ok(Self { patience: wait.map(|seconds| Duration::from_secs(seconds as u64)), after })
    }
}

/// Reads a command id; what is none names no command.
pub fn parse_id(text: &str) -> Result<CommandId, Problem> {
    text.parse().map_err(|_| unknown(text))
}

/// A command of the caller's, as it stands on disk.
pub async fn find(app: &App, caller: &Caller, id: CommandId) -> Result<Arc<Command>, Problem> {
    let command =
        match app.driver.cared_for(id).filter(|command| command.spec.tenant == caller.tenant()) {
            Some(command) => Some(command),
            None => app
                .store
                .command_of(caller.tenant(), id)
                .await
                .map_err(|error| Problem::store(&error))?,
        };
    let command = command.filter(|command| caller.may_touch(&command.spec.device));
    command.map(Arc::new).ok_or_else(|| unknown(&id.to_string()))
}

async fn changed(
    app: &App,
    caller: &Caller,
    id: CommandId,
    after: Option<StatusVersion>,
    patience: Duration,
) -> Result<Arc<Command>, Problem> {
    // Registered before the command is read, so that no change falls in between.
    let what = match after {
        Some(_) => WaitsFor::AnyChange,
        None => WaitsFor::TheEnd,
    };
    let mut watch = app.driver.watch(id, what);
    let is_news = |command: &Command| {
        command.life.phase.has_ended() || after.is_some_and(|after| command.life.version > after)
    };
    let is_known = |command: &Command| {
        let spec = &command.spec;
        spec.tenant == caller.tenant() && caller.may_touch(&spec.device) && !is_news(command)
    };
    let lately = match what {
        WaitsFor::TheEnd => app.driver.accepted_lately(id).filter(is_known),
        WaitsFor::AnyChange => None,
    };
    let mut is_read = lately.is_none();
    let mut command = match lately {
        Some(command) => Arc::new(command),
        None => find(app, caller, id).await?,
    };
    let deadline = tokio::time::sleep(patience);
    tokio::pin!(deadline);
    while !is_news(&command) {
        tokio::select! {
            biased;
            next = watch.next() => match next {
                Some(next) => (command, is_read) = (next, true),
                None => break,
            },
            () = &mut deadline => {
                // What came before the end was not told to whoever waits for that.
                is_read = false;
                break;
            }
        }
    }
    match is_read {
        true => Ok(command),
        // What is shown is what is on record.
        false => find(app, caller, id).await,
    }
}

fn unknown(id: &str) -> Problem {
    let shown: String = id.chars().take(64).collect();
    Problem::new(Code::CommandNotFound, format!("no command {shown} in this tenant"))
}
