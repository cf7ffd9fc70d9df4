//! What the platform knows of DJI's methods and error codes, read from data. Everything here is pure; the data are
//! part of the program and can be overridden by a file that the caller read.

mod check;
mod error;
mod field;
mod gateway;
mod job;
mod load;
mod mask;
mod method;
mod schema;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use utmos_core::nearest;

pub use check::{Checked, DEPTH_MAX, Flaw, Hint, VALUES_MAX, check_object};
pub use error::CatalogueError;
pub use field::{Choice, Field, Kind, Secret, When};
pub use gateway::GatewayModel;
pub use job::{Job, JobEvent, Reference};
pub use mask::{MASKED, mask_by_name, mask_cut_request, mask_members, mask_message, mask_request};
pub use method::{Abort, Alias, Domain, Method, Placement, Seq};

use load::Code;

const METHODS: &str = include_str!("../../data/catalogue.json");
const CODES: &str = include_str!("../../data/error_codes.json");

/// Livestream codes mean the same under every leading digit; this many lie between two of those.
const LIVE_CODE_STEP: i64 = 100_000;

/// Every method and every error code.
#[derive(Debug, Clone)]
pub struct Catalogue {
    raw_jobs: Map<String, Value>,
    raw_methods: BTreeMap<String, Map<String, Value>>,
    methods: BTreeMap<String, Method>,
    events: BTreeMap<String, Vec<JobEvent>>,
    codes: BTreeMap<i64, Code>,
    live_codes: BTreeMap<i64, Code>,
}

impl Catalogue {
    /// The catalogue that is part of the program.
    ///
    /// # Errors
    /// When the data file does not read, which a test of this crate excludes.
    pub fn embedded() -> Result<Self, CatalogueError> {
        let (codes, live_codes) = load::codes(CODES)?;
        let empty = Self {
            raw_jobs: Map::new(),
            raw_methods: BTreeMap::new(),
            methods: BTreeMap::new(),
            events: BTreeMap::new(),
            codes,
            live_codes,
        };
        empty.with_override(METHODS)
    }

    /// This catalogue with changes: `{"methods": {"cover_open": {"timeout_seconds": 90}}}`, in the form of the data
    /// file. Each key given takes the place of the whole key, `null` takes it away, and unknown names add methods.
    ///
    /// # Errors
    /// When the text or what results of it does not fit; names the method and the key.
    pub fn with_override(mut self, json: &str) -> Result<Self, CatalogueError> {
        load::merge(&mut self.raw_jobs, &mut self.raw_methods, &mut self.codes, json)?;
        self.methods = load::methods(&self.raw_jobs, &self.raw_methods)?;
        self.events = load::events(&self.methods);
        Ok(self)
    }

    /// The method of this name.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.get(name)
    }

    /// Every method, by name.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.values()
    }

    /// The known name that is most like `name`, if one is like it at all: for "did you mean".
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.methods.keys().map(String::as_str))
    }

    /// The meaning of a device's result code.
    #[must_use]
    pub fn meaning(&self, code: i64) -> Option<&str> {
        self.code(code).map(|code| code.meaning.as_str())
    }

    /// What to do about a device's result code, where that is evident.
    #[must_use]
    pub fn remedy(&self, code: i64) -> Option<&str> {
        self.code(code)?.remedy.as_deref()
    }

    /// The command methods an event of this method can belong to; empty when it reports no job.
    #[must_use]
    pub fn job_event(&self, event_method: &str) -> &[JobEvent] {
        self.events.get(event_method).map_or(&[], Vec::as_slice)
    }

    fn code(&self, code: i64) -> Option<&Code> {
        let live = || {
            let tail = code.checked_rem(LIVE_CODE_STEP)?;
            self.live_codes.get(&tail).filter(|_| LIVE_CODE_STEP < code)
        };
        self.codes.get(&code).or_else(live)
    }
}
