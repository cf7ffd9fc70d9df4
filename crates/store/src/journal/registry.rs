//! What an administrator sets up goes past the journal, to the store itself.

use async_trait::async_trait;
use utmos_core::{
    credential::Credential,
    device::{Device, SubDevice},
    id::{ApiId, GatewaySn},
    ports::{RegistryStore, StoreError, Tenant},
};

use super::JournalledStore;

#[async_trait]
impl RegistryStore for JournalledStore {
    async fn generation(&self) -> Result<u64, StoreError> {
        self.inner.generation().await
    }

    async fn put_tenant(&self, tenant: Tenant) -> Result<(), StoreError> {
        self.inner.put_tenant(tenant).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        self.inner.tenants().await
    }

    async fn put_credential(&self, credential: Credential) -> Result<(), StoreError> {
        self.inner.put_credential(credential).await
    }

    async fn credential(&self, api_id: &ApiId) -> Result<Option<Credential>, StoreError> {
        self.inner.credential(api_id).await
    }

    async fn credentials(&self) -> Result<Vec<Credential>, StoreError> {
        self.inner.credentials().await
    }

    async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        self.inner.devices().await
    }

    async fn put_topology(
        &self,
        gateway: &GatewaySn,
        new: Vec<Device>,
        subs: Vec<SubDevice>,
    ) -> Result<(), StoreError> {
        self.inner.put_topology(gateway, new, subs).await
    }

    async fn topologies(&self) -> Result<Vec<(GatewaySn, Vec<SubDevice>)>, StoreError> {
        self.inner.topologies().await
    }
}
