//! What reading needs to know that is not in the message: the catalogue, seen through a slit.

use utmos_core::{
    method::{Channel, CompletesBy},
    reply::JobState,
};

use crate::catalogue::{self, Catalogue, GatewayModel};

/// What the numbers and words of a message mean.
pub trait Meanings {
    /// The meaning of an error code, in English.
    fn meaning(&self, code: i64) -> Option<&str>;

    /// What is known of an event method that reports on jobs; nothing for any other event.
    fn job_event(&self, event_method: &str) -> Option<Box<dyn JobEvent + '_>>;

    /// Whether a method on `drc/up` answers the `drc/down` message of the same name; nothing if it is not known.
    fn answers_drc(&self, method: &str) -> Option<bool>;

    /// Whether a good `output.status` in the reply to a method says that its job is done.
    fn reply_may_end(&self, _method: &str) -> bool {
        true
    }
}

/// How an event reports on a job. Places are JSON pointers into its `data`, such as `/output/status`.
pub trait JobEvent {
    /// The methods of the commands it can belong to.
    fn command_methods(&self) -> Vec<String>;

    /// Where the word for the job's state stands.
    fn state_at(&self) -> &str;

    /// What that word says. A word nobody knows is no end.
    fn state_of(&self, word: &str) -> JobState;

    /// Where the percentage stands.
    fn percent_at(&self) -> Option<&str>;

    /// Where the step stands, a key or a number.
    fn step_at(&self) -> Option<&str>;

    /// The name of a step that the event gives as a number.
    fn step_name(&self, step: &str) -> Option<&str>;

    /// Where the job's own id stands.
    fn job_ref_at(&self) -> Option<&str>;
}

/// Knows nothing: every code is without a meaning, no event reports on a job.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMeanings;

impl Meanings for NoMeanings {
    fn meaning(&self, _: i64) -> Option<&str> {
        None
    }

    fn job_event(&self, _: &str) -> Option<Box<dyn JobEvent + '_>> {
        None
    }

    fn answers_drc(&self, _: &str) -> Option<bool> {
        None
    }
}

/// The catalogue for messages of one gateway, whose model decides how steps are numbered.
#[derive(Debug, Clone, Copy)]
pub struct ForGateway<'a> {
    /// The catalogue.
    pub catalogue: &'a Catalogue,
    /// The gateway's model, where it is known. Without it, steps that models number differently stay numbers.
    pub model: Option<GatewayModel>,
}

impl Meanings for ForGateway<'_> {
    fn meaning(&self, code: i64) -> Option<&str> {
        self.catalogue.meaning(code)
    }

    fn job_event(&self, event_method: &str) -> Option<Box<dyn JobEvent + '_>> {
        let events = self.catalogue.job_event(event_method);
        let first = events.first()?;
        Some(Box::new(CatalogueJob { events, job: &first.job, model: self.model }))
    }

    fn answers_drc(&self, method: &str) -> Option<bool> {
        let method = self.catalogue.method(method)?;
        (method.channel == Channel::DrcDown).then_some(method.completes_by != CompletesBy::NoReply)
    }

    fn reply_may_end(&self, method: &str) -> bool {
        self.catalogue.method(method).is_none_or(|method| !method.reply_status_is_no_end)
    }
}

impl Meanings for Catalogue {
    fn meaning(&self, code: i64) -> Option<&str> {
        Catalogue::meaning(self, code)
    }

    fn job_event(&self, event_method: &str) -> Option<Box<dyn JobEvent + '_>> {
        let events = Catalogue::job_event(self, event_method);
        let first = events.first()?;
        Some(Box::new(CatalogueJob { events, job: &first.job, model: None }))
    }

    fn answers_drc(&self, method: &str) -> Option<bool> {
        ForGateway { catalogue: self, model: None }.answers_drc(method)
    }

    fn reply_may_end(&self, method: &str) -> bool {
        ForGateway { catalogue: self, model: None }.reply_may_end(method)
    }
}

/// An event that several commands share is read in the way of the first of them.
struct CatalogueJob<'a> {
    events: &'a [catalogue::JobEvent],
    job: &'a catalogue::Job,
    model: Option<GatewayModel>,
}

impl JobEvent for CatalogueJob<'_> {
    fn command_methods(&self) -> Vec<String> {
        self.events.iter().map(|event| event.command_method.clone()).collect()
    }

    fn state_at(&self) -> &str {
        &self.job.status
    }

    fn state_of(&self, word: &str) -> JobState {
        self.job.state(word)
    }

    fn percent_at(&self) -> Option<&str> {
        self.job.percent.as_deref()
    }

    fn step_at(&self) -> Option<&str> {
        self.job.step.as_deref()
    }

    fn step_name(&self, step: &str) -> Option<&str> {
        self.job.step_meaning(step, self.model)
    }

    fn job_ref_at(&self) -> Option<&str> {
        self.job.reference.as_ref().map(|reference| reference.event.as_str())
    }
}
