//! What many callers want at the same time, done in one transaction: one wait for the disk serves them all.
//!
//! Whoever comes while a transaction is under way waits for the next, which takes all that came meanwhile. Whoever stops
//! waiting stops nobody.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;
use utmos_core::ports::StoreError;

use super::fault::{again, closed};

/// Jobs of one transaction at most.
const BATCH_MAX: usize = 256;

struct Waiting<J, A> {
    job: J,
    answer: oneshot::Sender<Result<A, StoreError>>,
}

/// Jobs of one kind, and who waits for them.
pub(super) struct Gather<J, A> {
    waiting: Mutex<Vec<Waiting<J, A>>>,
    /// Held by whoever carries jobs out.
    turn: tokio::sync::Mutex<()>,
}

impl<J, A> Default for Gather<J, A> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<J: Send + 'static, A: Send + 'static> Gather<J, A> {
    /// Has a job carried out, together with others. `work` answers for each job in the order they are given.
    pub(super) async fn submit<F>(
        self: &Arc<Self>,
        job: J,
        work: impl FnOnce(Vec<J>) -> F + Send + 'static,
    ) -> Result<A, StoreError>
    where
        F: Future<Output = Result<Vec<A>, StoreError>> + Send,
    {
        let (answer, answered) = oneshot::channel();
        self.lock().push(Waiting { job, answer });
        let this = self.clone();
        tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            let batch = {
                let mut waiting = this.lock();
                let taken = waiting.len().min(BATCH_MAX);
                let rest = waiting.split_off(taken);
                mem::replace(&mut *waiting, rest)
            };
            // Most find that their job was done together with another's.
            if !batch.is_empty() {
                carry_out(batch, work).await;
            }
        });
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting<J, A>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn carry_out<J, A, F>(batch: Vec<Waiting<J, A>>, work: impl FnOnce(Vec<J>) -> F)
where
    F: Future<Output = Result<Vec<A>, StoreError>>,
{
    let (jobs, who): (Vec<J>, Vec<_>) = batch.into_iter().map(|it| (it.job, it.answer)).unzip();
    match work(jobs).await {
        // Nobody may be waiting any more.
        Ok(answers) => {
            for (answer, who) in answers.into_iter().zip(who) {
                drop(who.send(Ok(answer)));
            }
        }
        Err(error) => {
            for who in who {
                drop(who.send(Err(again(&error))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[tokio::test]
    async fn what_comes_while_one_is_under_way_is_done_together_and_each_gets_its_own_answer() {
        let gather = Arc::new(Gather::<u32, (u32, usize)>::default());
        let (open, gate) = oneshot::channel::<()>();
        let first = {
            let gather = gather.clone();
            tokio::spawn(async move {
                let work = |jobs: Vec<u32>| async move {
                    gate.await.unwrap();
                    Ok(jobs.iter().map(|job| (*job, jobs.len())).collect())
                };
                gather.submit(0, work).await
            })
        };
        while gather.turn.try_lock().is_ok() || !gather.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let rest: Vec<_> = (1..=300)
            .map(|number| {
                let gather = gather.clone();
                tokio::spawn(async move {
                    let work = |jobs: Vec<u32>| async move {
                        Ok(jobs.iter().map(|job| (*job, jobs.len())).collect())
                    };
                    gather.submit(number, work).await
                })
            })
            .collect();
        while gather.lock().len() < 300 {
            tokio::task::yield_now().await;
        }
        rest[9].abort();
        open.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), (0, 1));
        for (at, one) in (1..).zip(rest) {
            let expected = (at, if at <= 256 { 256 } else { 44 });
            match one.await {
                Ok(answer) => assert_eq!(answer.unwrap(), expected),
                Err(stopped) => assert!(stopped.is_cancelled() && at == 10),
            }
        }
    }

    #[tokio::test]
    async fn a_failure_is_everybodys() {
        let gather = Arc::new(Gather::<u32, ()>::default());
        let work = |_| async { Err(StoreError::Unavailable("full".to_owned())) };
        let error = gather.submit(1, work).await.unwrap_err();
        assert!(error.to_string().ends_with("full"), "{error}");
    }
}
