//! The kinds of gateway that are simulated, each with its aircraft. What differs between them stands here as data; the
//! rest of the simulator asks, and names no model.

pub(crate) mod airframe;
pub(crate) mod gateway;

use std::{fmt, str::FromStr};

use utmos_dji::catalogue::{GatewayModel, Method};

use airframe::Airframe;
use gateway::Gateway;

/// A gateway and the aircraft that comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Model {
    /// DJI Dock with a Matrice 30.
    Dock1,
    /// DJI Dock with a Matrice 30T.
    Dock1M30t,
    /// DJI Dock 2 with a Matrice 3D.
    #[default]
    Dock2,
    /// DJI Dock 2 with a Matrice 3TD.
    Dock2M3td,
    /// DJI Dock 3 with a Matrice 4D.
    Dock3,
    /// DJI Dock 3 with a Matrice 4TD.
    Dock3M4td,
    /// DJI RC Pro Enterprise with a Mavic 3E.
    RcPro,
    /// DJI RC Pro Enterprise with a Mavic 3T.
    RcProM3t,
    /// DJI RC Plus 2 with a Matrice 4E.
    RcPlus2,
    /// DJI RC Plus 2 with a Matrice 4T.
    RcPlus2M4t,
}

/// What a model is called, beside its own name.
const ALSO: [(&str, Model); 2] = [("dock", Model::Dock1), ("rc", Model::RcPro)];

impl Model {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Dock1,
        Self::Dock1M30t,
        Self::Dock2,
        Self::Dock2M3td,
        Self::Dock3,
        Self::Dock3M4td,
        Self::RcPro,
        Self::RcProM3t,
        Self::RcPlus2,
        Self::RcPlus2M4t,
    ];

    /// The name, such as `dock3` or `dock3_m4td`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dock1 => "dock1",
            Self::Dock1M30t => "dock1_m30t",
            Self::Dock2 => "dock2",
            Self::Dock2M3td => "dock2_m3td",
            Self::Dock3 => "dock3",
            Self::Dock3M4td => "dock3_m4td",
            Self::RcPro => "rc_pro",
            Self::RcProM3t => "rc_pro_m3t",
            Self::RcPlus2 => "rc_plus_2",
            Self::RcPlus2M4t => "rc_plus_2_m4t",
        }
    }

    /// The gateway, as the catalogue of methods names it.
    #[must_use]
    pub fn gateway_model(self) -> GatewayModel {
        self.gateway().model
    }

    /// Whether it is a dock, and not a remote controller.
    #[must_use]
    pub fn is_dock(self) -> bool {
        self.gateway().station.is_some()
    }

    /// Whether it knows a method. One that no page of DJI's gives to a gateway is taken for one of the docks'.
    #[must_use]
    pub fn knows(self, method: &Method) -> bool {
        if method.gateways.is_empty() {
            return self.is_dock();
        }
        method.gateways.contains(&self.gateway_model())
    }

    /// DJI's key of the gateway, such as `3-2-0`.
    #[must_use]
    pub fn gateway_key(self) -> String {
        self.gateway().kind.key()
    }

    /// DJI's key of the aircraft, such as `0-91-0`.
    #[must_use]
    pub fn aircraft_key(self) -> String {
        self.airframe().kind.key()
    }

    /// The index of the aircraft's camera, such as `80-0-0`.
    #[must_use]
    pub fn camera(self) -> &'static str {
        self.airframe().camera
    }

    /// What the aircraft is called, such as `M3D`; stands in the serial numbers that are made up for it.
    #[must_use]
    pub fn aircraft_name(self) -> &'static str {
        self.airframe().name
    }

    /// What the serial numbers begin with that are made up for gateways of this model.
    #[must_use]
    pub fn sn_prefix(self) -> &'static str {
        match self.gateway_model() {
            GatewayModel::Dock => "SIM-DOCK1-",
            GatewayModel::Dock2 => "SIM-DOCK-",
            GatewayModel::Dock3 => "SIM-DOCK3-",
            GatewayModel::Rc | GatewayModel::RcPro => "SIM-RCPRO-",
            GatewayModel::RcPlus2 => "SIM-RCPLUS2-",
        }
    }

    /// The keys that `osd` of the gateway holds, of all its messages together.
    pub fn gateway_osd(self) -> impl Iterator<Item = &'static str> {
        self.gateway().osd.iter().copied().flatten().copied()
    }

    /// The keys that `osd` of the aircraft holds, without the one that is the index of its camera.
    pub fn aircraft_osd(self) -> impl Iterator<Item = &'static str> {
        self.airframe().osd.iter().copied()
    }

    pub(crate) fn gateway(self) -> &'static Gateway {
        match self {
            Self::Dock1 | Self::Dock1M30t => &gateway::DOCK_1,
            Self::Dock2 | Self::Dock2M3td => &gateway::DOCK_2,
            Self::Dock3 | Self::Dock3M4td => &gateway::DOCK_3,
            Self::RcPro | Self::RcProM3t => &gateway::RC_PRO,
            Self::RcPlus2 | Self::RcPlus2M4t => &gateway::RC_PLUS_2,
        }
    }

    pub(crate) fn airframe(self) -> &'static Airframe {
        match self {
            Self::Dock1 => &airframe::M30,
            Self::Dock1M30t => &airframe::M30T,
            Self::Dock2 => &airframe::M3D,
            Self::Dock2M3td => &airframe::M3TD,
            Self::Dock3 => &airframe::M4D,
            Self::Dock3M4td => &airframe::M4TD,
            Self::RcPro => &airframe::M3E,
            Self::RcProM3t => &airframe::M3T,
            Self::RcPlus2 => &airframe::M4E,
            Self::RcPlus2M4t => &airframe::M4T,
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no model's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no model {0:?}; there are {names}", names = Model::ALL.map(Model::as_str).join(", "))]
pub struct UnknownModel(String);

impl FromStr for Model {
    type Err = UnknownModel;

    fn from_str(name: &str) -> Result<Self, UnknownModel> {
        let own = Self::ALL.into_iter().find(|model| model.as_str() == name);
        let also = || ALSO.iter().find(|(also, _)| *also == name).map(|(_, model)| *model);
        own.or_else(also).ok_or_else(|| UnknownModel(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_name_and_gateways_by_the_catalogues() {
        for model in Model::ALL {
            assert_eq!(model.as_str().parse(), Ok(model));
            assert_eq!(GatewayModel::from_key(&model.gateway_key()), Some(model.gateway_model()));
        }
        assert_eq!("rc".parse(), Ok(Model::RcPro));
        assert_eq!("dock".parse(), Ok(Model::Dock1));
        let refused = "dock4".parse::<Model>().map_err(|err| err.to_string());
        assert!(refused.is_err_and(|text| text.contains("\"dock4\"") && text.contains("dock3")));
    }
}
