//! Simulated nodes, each with a control channel of its own over TLS, that answer every job as our agent answers `true`:
//! more of them than agents would have room for.

mod keys;
mod node;

use anyhow::{Context, Result, bail};
use moorline_ssm::{
    activation::{CreateActivation, CreateActivationRequest},
    node::Tag,
};
use moorline_transport::{ApiClient, HttpClient};
use tokio::task::JoinSet;

use self::{
    keys::NodeKeys,
    node::{Activation, SimulatedNode},
};
use crate::Endpoint;

/// Uses that an activation has at most.
const ACTIVATION_USES: usize = 1000;
/// Nodes that register and connect at the same time.
const DIALLERS: usize = 16;

/// Nodes that are connected; they go with their value.
#[derive(Debug)]
pub struct SimulatedFleet {
    nodes: JoinSet<Result<()>>,
}

impl SimulatedFleet {
    /// The tag of all of them, as its key and value.
    pub const TAG: (&str, &str) = ("Fleet", "simulated");

    /// Registers all nodes and connects them.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub async fn connect(endpoint: &Endpoint, count: usize) -> Result<Self> {
        let mut keys = NodeKeys::generate(count)?;
        let client = client(endpoint);
        let mut activations = Vec::new();
        for _ in 0..count.div_ceil(ACTIVATION_USES) {
            activations.push(activation(endpoint, &client).await?);
        }
        let mut nodes = JoinSet::new();
        let mut opening = JoinSet::new();
        let mut diallers: Vec<_> = (0..DIALLERS).map(|_| self::client(endpoint)).collect();
        for number in 0..count {
            if diallers.is_empty() {
                let (client, node): (ApiClient, SimulatedNode) =
                    opening.join_next().await.context("no dialler")???;
                nodes.spawn(node.run());
                diallers.push(client);
            }
            let client = diallers.pop().context("no dialler")?;
            let key = keys.next().context("no key")??;
            let activation = activations
                .get(number / ACTIVATION_USES)
                .context("no activation")?
                .clone();
            opening.spawn(async move {
                let node = SimulatedNode::open(&client, &activation, key).await?;
                anyhow::Ok((client, node))
            });
        }
        while let Some(opened) = opening.join_next().await {
            let (_, node) = opened??;
            nodes.spawn(node.run());
        }
        Ok(Self { nodes })
    }

    /// # Errors
    /// One has lost its control channel.
    pub fn check_connected(&mut self) -> Result<()> {
        if let Some(ended) = self.nodes.try_join_next() {
            ended?.context("a simulated node")?;
            bail!("a simulated node lost its control channel");
        }
        Ok(())
    }
}

/// A client of the API that keeps its connection, as a program would.
fn client(endpoint: &Endpoint) -> ApiClient {
    let api = endpoint.api();
    let http = HttpClient::new(api.host().clone(), api.trust().clone());
    ApiClient::new(http, api.region().to_owned(), "moorline-tests".to_owned())
}

async fn activation(endpoint: &Endpoint, client: &ApiClient) -> Result<Activation> {
    let (key, value) = SimulatedFleet::TAG;
    let tag = Tag {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let input = CreateActivationRequest {
        iam_role: Some("moorline-node".to_owned()),
        registration_limit: Some(i32::try_from(ACTIVATION_USES)?),
        tags: Some(vec![tag]),
        ..Default::default()
    };
    let made = client
        .call::<CreateActivation>(Some(endpoint.api().credentials()), &input)
        .await?;
    Ok(Activation {
        id: made.activation_id.context("no activation id")?,
        code: made.activation_code.context("no activation code")?,
    })
}
