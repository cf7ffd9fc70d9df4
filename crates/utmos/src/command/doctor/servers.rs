//! The other servers of the database: whether each is reached directly from here.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use utmos_core::{ports::ReplicaStore, replica::Member};

use super::finding::Finding;

/// Longest that a connection may take: between servers it takes a thousandth.
const REACH_WAIT: Duration = Duration::from_secs(1);

/// Looks at every server that is at work now.
pub async fn check(replicas: &dyn ReplicaStore, is_direct: bool) -> Vec<Finding> {
    let members = match replicas.roll().await {
        Ok(roll) => roll.members,
        Err(err) => {
            let remedy = "what can go wrong is in docs/postgresql.md";
            return vec![Finding::fail("servers", err.to_string(), remedy)];
        }
    };
    let mut findings = Vec::new();
    for member in &members {
        if let Some(address) = member.line {
            findings.push(judge(member, address, is_reached(address).await));
        } else if members.len() > 1 && is_direct && !member.alone {
            findings.push(Finding::warn(
                "servers",
                format!("{} is not reached directly by others, and all goes by the database", member.name),
                "set servers.listen and servers.address there, or servers.direct = false everywhere",
            ));
        }
    }
    findings
}

async fn is_reached(address: SocketAddr) -> Result<(), String> {
    match timeout(REACH_WAIT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(err)) => Err(err.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

fn judge(member: &Member, address: SocketAddr, reached: Result<(), String>) -> Finding {
    let name = &member.name;
    match reached {
        Ok(()) => Finding::ok("servers", format!("{name} is reached directly at {address}")),
        Err(why) => Finding::warn(
            "servers",
            format!(
                "{name} is not reached directly at {address} from here ({why}); without that all goes by the database, which costs more"
            ),
            "let servers reach each other there, or set servers.listen and servers.address to where they do",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::replica::{InstanceId, ReplicaId};
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_server_that_cannot_be_reached_is_named_with_the_remedy() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let member = Member {
            id: ReplicaId(Uuid::nil()),
            instance: InstanceId(Uuid::nil()),
            name: "utmos-7".to_owned(),
            alone: false,
            client_id: None,
            line: Some(address),
            beats: 0,
            fit: true,
        };
        let text = |finding: Finding| format!("{finding:?}");
        let found = text(judge(&member, address, is_reached(address).await));
        assert!(found.contains("is reached directly"), "{found}");
        drop(listener);
        let found = text(judge(&member, address, is_reached(address).await));
        assert!(found.contains("utmos-7 is not reached"), "{found}");
        assert!(found.contains("servers.listen"), "{found}");
    }
}
