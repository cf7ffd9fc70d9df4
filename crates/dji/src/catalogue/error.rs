//! What can be wrong with the data of a catalogue.

/// Why a catalogue was refused. Names the method and the key at fault.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The text is no JSON.
    #[error("the {file} is no JSON")]
    Json {
        /// Which text.
        file: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Something stands at the top that the catalogue does not have.
    #[error("the catalogue has no {0:?} at its top, only \"jobs\", \"methods\" and \"codes\"")]
    UnknownTop(String),
    /// Something is no object that must be one.
    #[error("{0} must be an object")]
    NotAnObject(String),
    /// A method lacks a key.
    #[error("method {method:?} has no {key:?}")]
    Missing {
        /// The method.
        method: String,
        /// The key.
        key: &'static str,
    },
    /// A method has a key that the catalogue does not know.
    #[error("method {method:?} has an unknown key {key:?}{hint}")]
    UnknownKey {
        /// The method.
        method: String,
        /// The key.
        key: String,
        /// The known key that was perhaps meant.
        hint: String,
    },
    /// A key holds something that does not fit.
    #[error("method {method:?}, key {key:?}: {problem}")]
    BadKey {
        /// The method.
        method: String,
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// An error code holds something that does not fit.
    #[error("error code {code:?}: {problem}")]
    BadCode {
        /// The code as it stands there.
        code: String,
        /// What is wrong.
        problem: String,
    },
}
