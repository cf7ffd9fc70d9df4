//! What automatic answers are made of.

use std::time::Duration;

use utmos_core::{
    device_request::{Reply, ReplySource},
    id::{DeviceSn, GatewaySn, TenantId},
    ports::StoreError,
};
use utmos_dji::answer::{self, Facts, Question, ResourceFile, TaskProgress, Unanswered};

use super::Inner;

/// How long the store is waited for when an answer needs it.
const FACTS_WAIT: Duration = Duration::from_secs(2);

/// Why there is no automatic answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// There is none to it.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// What it needs could not be read.
    #[error("what the answer needs could not be read")]
    Store(#[source] StoreError),
    /// What it needs was not read in time.
    #[error("what the answer needs was not read within {} s", FACTS_WAIT.as_secs())]
    Late,
}

impl NoAnswer {
    /// Whether there may be one a moment later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unanswered(_) => false,
            Self::Store(_) | Self::Late => true,
        }
    }
}

impl Inner {
    /// The automatic answer to a question. What needs the store and cannot have it has none: it could only be wrong.
    pub(super) async fn automatic(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        question: &Question,
    ) -> Result<Reply, NoAnswer> {
        let facts = tokio::time::timeout(FACTS_WAIT, self.facts(tenant, gateway, question));
        let facts = facts.await.map_err(|_| NoAnswer::Late)?.map_err(NoAnswer::Store)?;
        let automatic = answer::automatic(question, &facts)?;
        Ok(Reply {
            code: automatic.result.to_string(),
            message: automatic.message.map(str::to_owned),
            source: ReplySource::Auto,
            by: None,
            data: automatic.data.into(),
            at: self.parts.clock.now().wall,
        })
    }

    async fn facts(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        question: &Question,
    ) -> Result<Facts, StoreError> {
        let mut facts = Facts::default();
        match question {
            Question::Config { simulated } => {
                let cloud = &self.parts.settings.cloud;
                // An answer with an empty licence has a real dock leave; without one it stays, and asks again.
                let is_simulated = || {
                    let device = self.parts.directory.device(&gateway.to_device());
                    *simulated || device.is_some_and(|device| device.simulated)
                };
                let is_good = cloud.has_app() || is_simulated();
                facts.config = is_good.then(|| cloud.clone());
            }
            Question::BindStatus { .. } | Question::Organization { .. } | Question::Bind { .. } => {
                let (onboarding, gateway) = (self.parts.onboarding.clone(), gateway.clone());
                let question = question.clone();
                // A binding that was begun goes to its end, also when nobody waits for it any more.
                let asking =
                    tokio::spawn(
                        async move { onboarding.facts(tenant, &gateway, &question).await },
                    );
                return asking
                    .await
                    .map_err(|err| StoreError::Unavailable(format!("it was broken off: {err}")))?;
            }
            Question::Resource { flight_id } => {
                facts.resource = self.resource(tenant, gateway, flight_id).await?;
            }
            Question::Progress { target_sn, flight_id } => {
                facts.progress = self.progress(tenant, target_sn, flight_id).await?;
            }
            Question::FlightAreas
            | Question::OfflineMap
            | Question::Storage { .. }
            | Question::Unreadable
            | Question::NoMethod
            | Question::Other => {}
        }
        Ok(facts)
    }

    /// The file that the newest `flighttask_prepare` for this task named.
    async fn resource(
        &self,
        tenant: TenantId,
        gateway: &GatewaySn,
        flight_id: &str,
    ) -> Result<Option<ResourceFile>, StoreError> {
        let store = &self.parts.store;
        let payload = store.task_sent(tenant, gateway, "flighttask_prepare", flight_id).await?;
        let payload = payload.and_then(|text| serde_json::from_str(&text).ok());
        let payload: serde_json::Value = payload.unwrap_or_default();
        let text = |name: &str| Some(payload.get("file")?.get(name)?.as_str()?.to_owned());
        let file = text("url").zip(text("fingerprint"));
        Ok(file.map(|(url, fingerprint)| ResourceFile { url, fingerprint }))
    }

    /// What the other dock, which must be the same tenant's, reported of the task last.
    async fn progress(
        &self,
        tenant: TenantId,
        target_sn: &str,
        flight_id: &str,
    ) -> Result<Option<TaskProgress>, StoreError> {
        let Ok(target) = DeviceSn::parse(target_sn) else { return Ok(None) };
        let target = target.to_gateway();
        let store = &self.parts.store;
        let state = store.task_state(tenant, &target, "flighttask_execute", flight_id).await?;
        Ok(state.map(|state| {
            let report = state.report.and_then(|text| serde_json::from_str(&text).ok());
            let report: serde_json::Value = report.unwrap_or_default();
            let step = report.pointer("/output/progress/current_step");
            TaskProgress {
                flight_id: flight_id.to_owned(),
                status: state.status,
                step: step.and_then(serde_json::Value::as_i64),
                percent: state.percent,
            }
        }))
    }
}
