//! Packages as controller and worker ask for them, done by the runtime room.

use std::path::Path;

use bytes::Bytes;

use crate::controller::packages as controller;
use crate::domain::function::Runtime;
use crate::domain::limits::Limits;
use crate::runtime::package::{self, PackageError};
use crate::worker;

pub struct ZipPackages {
    limits: Limits,
}

impl ZipPackages {
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }
}

impl controller::Packages for ZipPackages {
    fn inspect(
        &self,
        package: Bytes,
        runtime: Runtime,
        handler: Option<&str>,
        limits: &Limits,
    ) -> Result<controller::Inspected, controller::PackageError> {
        let inspected = package::inspect(package, runtime, handler, limits).map_err(refused)?;
        let needs_build = inspected.needs_build();
        Ok(controller::Inspected { package: inspected.package, needs_build })
    }

    fn wrap_source(
        &self,
        runtime: Runtime,
        handler: Option<&str>,
        file_name: Option<&str>,
        source: &[u8],
    ) -> Result<Bytes, controller::PackageError> {
        package::from_source(runtime, handler, file_name, source).map_err(refused)
    }
}

fn refused(error: PackageError) -> controller::PackageError {
    match error {
        PackageError::TooLarge(sentence) => controller::PackageError::TooLarge(sentence),
        other => controller::PackageError::Invalid(other.to_string()),
    }
}

impl worker::Packages for ZipPackages {
    fn unpack(&self, package: &[u8], into: &Path) -> Result<u64, String> {
        package::unpack(package, into, &self.limits).map_err(|error| error.to_string())
    }

    fn add_file(&self, package: &[u8], name: &str, contents: &[u8], executable: bool) -> Result<Bytes, String> {
        package::add_file(package, name, contents, executable).map_err(|error| error.to_string())
    }
}
