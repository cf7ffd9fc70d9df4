//! A history for tests of who reads it: it holds what a script says.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use utmos_core::{
    id::{DeviceSn, TenantId},
    ports::{
        DeviceTelemetry, SampleRange, SamplesRead, StoreError, TelemetryRules, TelemetryStore,
        Tidied,
    },
    telemetry::Latest,
    time::Timestamp,
};

/// What is read is what it answers.
pub struct ScriptedHistory<F>(pub F);

#[async_trait]
impl<F> TelemetryStore for ScriptedHistory<F>
where
    F: Fn(SampleRange) -> BoxFuture<'static, SamplesRead> + Send + Sync,
{
    async fn keep_telemetry(&self, _: Vec<DeviceTelemetry>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn latest_telemetry(
        &self,
        _: Vec<(TenantId, DeviceSn)>,
    ) -> Result<BTreeMap<DeviceSn, Latest>, StoreError> {
        Ok(BTreeMap::new())
    }

    async fn samples(
        &self,
        range: SampleRange,
        _: usize,
        _: usize,
    ) -> Result<SamplesRead, StoreError> {
        Ok((self.0)(range).await)
    }

    async fn tidy_telemetry(&self, _: &TelemetryRules, _: Timestamp) -> Result<Tidied, StoreError> {
        Ok(Tidied::default())
    }

    async fn history_bytes(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}
