//! What the caller knows when a device asks, and DJI's shapes for saying it.

use std::{collections::BTreeMap, fmt};

use utmos_core::id::DeviceSn;

use super::{ALREADY_BOUND, Automatic, BindDevice, WRONG_BINDING_CODE};
use crate::writer::{ObjectWriter, array};

/// Everything an automatic answer can need. Fill in what the [`super::Question`] asks about and leave the rest.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Settings for `config`.
    pub config: Option<CloudConfig>,
    /// Bindings of the devices that `airport_bind_status` names; a device that is missing is not bound.
    pub bindings: BTreeMap<DeviceSn, Binding>,
    /// The organisation whose id and binding code `airport_organization_get` names, if both fit.
    pub organization: Option<Organization>,
    /// What became of each device of `airport_organization_bind`; one that is missing was refused.
    pub outcomes: BTreeMap<DeviceSn, BindingOutcome>,
    /// Custom flight areas for `flight_areas_get`. An empty list is an answer too.
    pub flight_areas: Vec<AreaFile>,
    /// Temporary credentials for `storage_config_get`.
    pub storage: Option<Storage>,
    /// The file of the task that `flighttask_resource_get` names.
    pub resource: Option<ResourceFile>,
    /// How the task stands that `flighttask_progress_get` names.
    pub progress: Option<TaskProgress>,
}

/// Answer to `config`. A wrong licence makes a dock disconnect.
#[derive(Clone)]
pub struct CloudConfig {
    /// Host of the time server.
    pub ntp_server_host: String,
    /// Port of the time server, usually 123.
    pub ntp_server_port: u16,
    /// App id from DJI's developer site. Sent as text, as DJI's own cloud code does; the page's example has a number.
    pub app_id: String,
    /// App key, a secret.
    pub app_key: String,
    /// App licence, a secret.
    pub app_license: String,
}

impl CloudConfig {
    /// Whether a real dock would stay: it leaves when the app is none of DJI's.
    #[must_use]
    pub fn has_app(&self) -> bool {
        ![&self.app_id, &self.app_key, &self.app_license].iter().any(|text| text.is_empty())
    }
}

impl fmt::Debug for CloudConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudConfig")
            .field("ntp_server_host", &self.ntp_server_host)
            .finish_non_exhaustive()
    }
}

/// An organisation devices are bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// `organization_id`.
    pub id: String,
    /// `organization_name`.
    pub name: String,
}

/// A bound device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Whose it is.
    pub organization: Organization,
    /// The name people gave it.
    pub callsign: String,
}

/// What became of a device that was to be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingOutcome {
    /// It is bound now.
    Bound,
    /// The binding code is wrong.
    WrongCode,
    /// It is bound to somebody else.
    AlreadyBound,
}

/// A file with custom flight areas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AreaFile {
    /// `geofence_….json`.
    pub name: String,
    /// Where the dock may fetch it.
    pub url: String,
    /// SHA-256 of the file.
    pub checksum: String,
    /// Size in bytes.
    pub size: u64,
}

/// Where a device may upload to, and with which temporary credentials.
#[derive(Clone)]
pub struct Storage {
    /// The bucket.
    pub bucket: String,
    /// URL of the store.
    pub endpoint: String,
    /// `ali`, `aws` or `minio`.
    pub provider: String,
    /// The region, where the store has any.
    pub region: String,
    /// What every key must begin with.
    pub object_key_prefix: String,
    /// Temporary key.
    pub access_key_id: String,
    /// Temporary secret.
    pub access_key_secret: String,
    /// Temporary session token.
    pub security_token: String,
    /// How long they hold, in seconds.
    pub expire_seconds: u32,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// How a flight task stands, as its dock reported it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskProgress {
    /// The task.
    pub flight_id: String,
    /// DJI's word.
    pub status: String,
    /// `current_step`, where it was told as a number.
    pub step: Option<i64>,
    /// How far it is.
    pub percent: Option<u8>,
}

/// A wayline file.
#[derive(Clone, PartialEq, Eq)]
pub struct ResourceFile {
    /// Where the dock may fetch it; holds a signature.
    pub url: String,
    /// MD5 of the file.
    pub fingerprint: String,
}

impl fmt::Debug for ResourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceFile")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// The one answer without `result` and `output`.
pub(super) fn config(config: &CloudConfig) -> Automatic {
    let data = ObjectWriter::with_capacity(256)
        .text("ntp_server_host", &config.ntp_server_host)
        .number("ntp_server_port", config.ntp_server_port)
        .text("app_id", &config.app_id)
        .text("app_key", &config.app_key)
        .text("app_license", &config.app_license)
        .finish();
    Automatic { result: 0, message: None, data }
}

pub(super) fn bind_status(devices: &[String], facts: &Facts) -> String {
    let status = devices.iter().map(|sn| {
        let binding = DeviceSn::parse(sn).ok().and_then(|sn| facts.bindings.get(&sn));
        let (id, name, callsign) = binding.map_or(("", "", ""), |binding| {
            (
                binding.organization.id.as_str(),
                binding.organization.name.as_str(),
                binding.callsign.as_str(),
            )
        });
        ObjectWriter::with_capacity(256)
            .text("sn", sn)
            .flag("is_device_bind_organization", binding.is_some())
            .text("organization_id", id)
            .text("organization_name", name)
            .text("device_callsign", callsign)
            .finish()
    });
    ObjectWriter::with_capacity(512).raw("bind_status", &array(status)).finish()
}

pub(super) fn organization(organization: &Organization) -> String {
    ObjectWriter::with_capacity(64).text("organization_name", &organization.name).finish()
}

/// `err_infos` has every device, also those that went well, with 0 (DJI's cloud code; the page shows failures only).
pub(super) fn bind(devices: &[BindDevice], facts: &Facts) -> String {
    let infos = devices.iter().map(|device| {
        let outcome = facts.outcomes.get(&device.sn).copied().unwrap_or(BindingOutcome::WrongCode);
        let code = match outcome {
            BindingOutcome::Bound => 0,
            BindingOutcome::WrongCode => WRONG_BINDING_CODE,
            BindingOutcome::AlreadyBound => ALREADY_BOUND,
        };
        ObjectWriter::with_capacity(64)
            .text("sn", device.sn.as_str())
            .number("err_code", code)
            .finish()
    });
    ObjectWriter::with_capacity(192).raw("err_infos", &array(infos)).finish()
}

pub(super) fn flight_areas(files: &[AreaFile]) -> String {
    let files = files.iter().map(|file| {
        ObjectWriter::with_capacity(256)
            .text("name", &file.name)
            .text("url", &file.url)
            .text("checksum", &file.checksum)
            .number("size", file.size)
            .finish()
    });
    ObjectWriter::with_capacity(64).raw("files", &array(files)).finish()
}

pub(super) fn storage(storage: &Storage) -> String {
    let credentials = ObjectWriter::with_capacity(256)
        .text("access_key_id", &storage.access_key_id)
        .text("access_key_secret", &storage.access_key_secret)
        .number("expire", storage.expire_seconds)
        .text("security_token", &storage.security_token)
        .finish();
    ObjectWriter::with_capacity(512)
        .text("bucket", &storage.bucket)
        .raw("credentials", &credentials)
        .text("endpoint", &storage.endpoint)
        .text("object_key_prefix", &storage.object_key_prefix)
        .text("provider", &storage.provider)
        .text("region", &storage.region)
        .finish()
}

pub(super) fn resource(file: &ResourceFile) -> String {
    let inner = ObjectWriter::with_capacity(256)
        .text("url", &file.url)
        .text("fingerprint", &file.fingerprint)
        .finish();
    ObjectWriter::with_capacity(320).raw("file", &inner).finish()
}

pub(super) fn progress(task: &TaskProgress) -> String {
    let mut inner = ObjectWriter::with_capacity(64);
    if let Some(step) = task.step {
        inner = inner.number("current_step", step);
    }
    if let Some(percent) = task.percent {
        inner = inner.number("percent", percent);
    }
    ObjectWriter::with_capacity(160)
        .text("flight_id", &task.flight_id)
        .raw("progress", &inner.finish())
        .text("status", &task.status)
        .finish()
}
