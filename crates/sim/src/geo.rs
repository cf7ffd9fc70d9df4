//! Places, and the way between them, on an earth that is flat for a few kilometres.

/// Metres in a degree of latitude.
const METRES_PER_DEGREE: f64 = 111_320.0;

/// A place. Heights are above the WGS84 ellipsoid, as DJI gives them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Position {
    /// Degrees, north positive.
    pub latitude: f64,
    /// Degrees, east positive.
    pub longitude: f64,
    /// Metres above the ellipsoid.
    pub height: f64,
}

impl Position {
    /// The place so many metres to the north and to the east, at the same height.
    #[must_use]
    pub fn moved(self, north: f64, east: f64) -> Self {
        let shrink = self.latitude.to_radians().cos().max(1e-6);
        Self {
            latitude: self.latitude + north / METRES_PER_DEGREE,
            longitude: self.longitude + east / (METRES_PER_DEGREE * shrink),
            height: self.height,
        }
    }

    /// The same place at another height.
    #[must_use]
    pub fn at_height(self, height: f64) -> Self {
        Self { height, ..self }
    }

    /// Metres to the north and to the east of here at which `other` lies.
    #[must_use]
    pub fn offset_to(self, other: Self) -> (f64, f64) {
        let shrink = self.latitude.to_radians().cos().max(1e-6);
        let north = (other.latitude - self.latitude) * METRES_PER_DEGREE;
        let east = (other.longitude - self.longitude) * METRES_PER_DEGREE * shrink;
        (north, east)
    }

    /// Metres over ground to `other`.
    #[must_use]
    pub fn ground_distance(self, other: Self) -> f64 {
        let (north, east) = self.offset_to(other);
        north.hypot(east)
    }

    /// Metres through the air to `other`.
    #[must_use]
    pub fn distance(self, other: Self) -> f64 {
        self.ground_distance(other).hypot(other.height - self.height)
    }
}

/// The compass direction of an offset, -180 to 180 degrees, 0 to the north.
#[must_use]
pub fn bearing(north: f64, east: f64) -> f64 {
    east.atan2(north).to_degrees()
}

/// An angle brought into -180 to 180 degrees.
#[must_use]
pub fn wrapped(degrees: f64) -> f64 {
    (degrees + 180.0).rem_euclid(360.0) - 180.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_here() {
        let here = Position { latitude: 22.5, longitude: 113.9, height: 30.0 };
        let there = here.moved(300.0, -400.0);
        assert!((here.ground_distance(there) - 500.0).abs() < 0.1);
        let (north, east) = here.offset_to(there);
        assert!((north - 300.0).abs() < 0.01 && (east + 400.0).abs() < 0.01);
        assert!((here.distance(there.at_height(30.0 + 1200.0)) - 1300.0).abs() < 0.1);
        assert!(there.moved(-300.0, 400.0).ground_distance(here) < 0.1);
    }

    #[test]
    fn directions_are_those_of_a_compass() {
        assert!((bearing(1.0, 0.0)).abs() < 1e-9);
        assert!((bearing(0.0, 1.0) - 90.0).abs() < 1e-9);
        assert!((wrapped(270.0) + 90.0).abs() < 1e-9);
        assert!((wrapped(-190.0) - 170.0).abs() < 1e-9);
    }
}
