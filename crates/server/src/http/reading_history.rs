//! Reads the history for those who ask: beside the threads that serve everybody, a few mebibytes at a time, few of them at
//! once, and of each tenant few questions, until their answers have left.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utmos_core::{
    id::TenantId,
    ports::{SampleRange, SamplesRead, StoreError, TelemetryStore},
};

use super::problem::{Code, Problem};

/// Questions of one tenant that are being answered, from the first read until the answer has left.
pub const OF_TENANT_MAX: usize = 4;
/// Longest wait for one of these to end.
const TURN_WAIT: Duration = Duration::from_secs(10);
const OVERLOADED_RETRY_SECONDS: u32 = 5;
/// Reads at once, of all tenants: fewer than the store has readers, so that whoever asks for something small finds one.
const READS_MAX: usize = 2;
/// Pieces of the history that are read in one go, and their bytes.
const PIECES_A_READ: usize = 32;
const BYTES_A_READ: usize = 4 * 1024 * 1024;
/// What of an answer is handed to the connection in one go. The rest is held here, and counts, until that has left.
const BYTES_A_FRAME: usize = 64 * 1024;

/// Who reads the history.
pub struct ReadingHistory {
    /// No more entries than tenants.
    of: Mutex<BTreeMap<TenantId, Arc<Semaphore>>>,
    reads: Arc<Semaphore>,
    turn_wait: Duration,
}

/// A question that is being answered.
pub struct Question {
    /// Also held by a read that goes on after whoever asked has hung up.
    of_tenant: Arc<OwnedSemaphorePermit>,
    reads: Arc<Semaphore>,
}

impl Default for ReadingHistory {
    fn default() -> Self {
        let reads = Arc::new(Semaphore::new(READS_MAX));
        Self { of: Mutex::default(), reads, turn_wait: TURN_WAIT }
    }
}

impl ReadingHistory {
    /// Begins to answer a question of a tenant, as soon as few enough others are being answered.
    pub async fn begin(&self, tenant: TenantId) -> Result<Question, Problem> {
        let of_tenant = {
            let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
            let of = of.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(OF_TENANT_MAX)));
            of.clone()
        };
        let turn = tokio::time::timeout(self.turn_wait, of_tenant.acquire_owned()).await;
        let Ok(Ok(of_tenant)) = turn else {
            let message = format!(
                "{OF_TENANT_MAX} questions of this tenant about the history are being answered at this moment; read their \
                 answers, and send it again"
            );
            return Err(
                Problem::new(Code::Overloaded, message).retry_after(OVERLOADED_RETRY_SECONDS)
            );
        };
        Ok(Question { of_tenant: Arc::new(of_tenant), reads: self.reads.clone() })
    }
}

impl Question {
    /// Reads a little, and does with it on the same kind of thread what is to be done. What is being read is read to its end
    /// whether somebody waits for it or not, and counts until then.
    pub async fn read<T: Send + 'static>(
        &self,
        store: Arc<dyn TelemetryStore>,
        range: SampleRange,
        work: impl FnOnce(SamplesRead) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let broken = |err: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("reading the history was broken off: {err}"))
        };
        let turn = self.reads.clone().acquire_owned().await.map_err(|err| broken(&err))?;
        let held = (turn, self.of_tenant.clone());
        let reading = tokio::spawn(async move {
            let read = store.samples(range, PIECES_A_READ, BYTES_A_READ).await?;
            let done = tokio::task::spawn_blocking(move || {
                let done = work(read);
                drop(held);
                done
            });
            done.await.map_err(|err| broken(&err))
        });
        reading.await.map_err(|err| broken(&err))?
    }

    /// The answer. The question counts until it has left.
    pub fn answer(self, content_type: &'static str, answer: &impl Serialize) -> Response {
        let Ok(json) = serde_json::to_vec(answer) else {
            let message = "the answer could not be written";
            return Problem::new(Code::InternalError, message).into_response();
        };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (header::CONTENT_LENGTH, HeaderValue::from(json.len())),
        ];
        let frames = stream::unfold((Bytes::from(json), self), |(mut rest, question)| async move {
            let frame = rest.split_to(rest.len().min(BYTES_A_FRAME));
            (!frame.is_empty()).then_some((Ok::<_, Infallible>(frame), (rest, question)))
        });
        (headers, Body::from_stream(frames)).into_response()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use http_body_util::BodyExt;
    use utmos_core::{id::DeviceSn, time::Timestamp};
    use uuid::Uuid;

    use super::{super::scripted_history::ScriptedHistory, *};

    #[tokio::test]
    async fn a_tenant_that_does_not_take_its_answers_waits_and_nobody_else_does() {
        let turn_wait = Duration::from_millis(1);
        let reading = ReadingHistory { turn_wait, ..ReadingHistory::default() };
        let [one, other] = [1, 2].map(|number| TenantId::new(Uuid::from_u128(number)));
        let long = "x".repeat(1_000_000);
        let mut untaken = Vec::new();
        for _ in 0..OF_TENANT_MAX {
            let question = reading.begin(one).await.unwrap();
            let mut body = question.answer("application/json", &long).into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(first.len(), BYTES_A_FRAME);
            untaken.push(body);
        }
        let refused = reading.begin(one).await.err().unwrap();
        assert_eq!(refused.code, Code::Overloaded);
        let question = reading.begin(other).await.unwrap();
        let answer = question.answer("application/json", &long);
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], "1000002");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 1_000_002);
        // One that is taken to its end, and one that is thrown away.
        untaken.pop().unwrap().collect().await.unwrap();
        untaken.pop();
        for _ in 0..2 {
            untaken
                .push(reading.begin(one).await.unwrap().answer("application/json", &0).into_body());
        }
        assert!(reading.begin(one).await.is_err());
    }

    fn range(tenant: TenantId) -> SampleRange {
        let (from, to) = (Timestamp::from_millis(0), Timestamp::from_millis(1));
        SampleRange { tenant, device: DeviceSn::parse("D1").unwrap(), from, to, begin: None }
    }

    async fn soon<T>(doing: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(30), doing).await.unwrap()
    }

    #[tokio::test]
    async fn a_read_counts_until_its_end_also_where_whoever_asked_has_hung_up() {
        let turn_wait = Duration::from_millis(1);
        let reading = Arc::new(ReadingHistory { turn_wait, ..ReadingHistory::default() });
        let [one, other] = [1, 2].map(|number| TenantId::new(Uuid::from_u128(number)));
        // Reads that take until they are let go on.
        let [begun, go_on] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
        let (has_begun, may_go_on) = (begun.clone(), go_on.clone());
        let slow = Arc::new(ScriptedHistory(move |_| {
            has_begun.add_permits(1);
            let may_go_on = may_go_on.clone();
            Box::pin(async move {
                may_go_on.acquire().await.unwrap().forget();
                SamplesRead::default()
            }) as _
        }));
        let ask = |tenant| {
            let (reading, slow) = (reading.clone(), slow.clone());
            tokio::spawn(async move {
                let question = reading.begin(tenant).await.unwrap();
                question.read(slow, range(tenant), |_| ()).await.unwrap();
            })
        };
        for _ in 0..READS_MAX {
            let asking = ask(one);
            soon(begun.acquire()).await.unwrap().forget();
            asking.abort();
            assert!(soon(asking).await.unwrap_err().is_cancelled());
        }
        // Both are being read still, and count as reads and as questions of their tenant.
        assert_eq!(reading.reads.available_permits(), 0);
        let mut questions = Vec::new();
        for _ in READS_MAX..OF_TENANT_MAX {
            questions.push(reading.begin(one).await.unwrap());
        }
        assert!(reading.begin(one).await.is_err());
        let waiting = ask(other);
        go_on.add_permits(READS_MAX + 1);
        soon(waiting).await.unwrap();
        assert_eq!(
            soon(reading.reads.acquire_many(READS_MAX as u32)).await.unwrap().num_permits(),
            READS_MAX
        );
        let again = reading.of.lock().unwrap()[&one].clone();
        let freed = soon(again.acquire_many(READS_MAX as u32)).await.unwrap();
        assert_eq!(freed.num_permits(), READS_MAX);
    }
}
