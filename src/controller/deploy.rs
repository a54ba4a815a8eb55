//! From uploaded code to a published version: inspect, compile where needed, store, publish, tell. Versions never change;
//! calls in flight finish on the one they began with.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::disk::Room;
use crate::domain::function::{Function, Runtime, Version};
use crate::domain::ids::{Digest, FunctionId, KeyId, Owner, VersionKey};
use crate::ports::bus::News;
use crate::ports::registry::RegistryError;

use super::Controller;
use super::error::{ApiError, Code, function_not_found};
use super::ids;
use super::lookup::Current;
use super::packages::{Inspected, PackageError, is_archive};
use super::spec::{Settings, Spec, check_name};

/// Updates of one function that happen at once: so often one is tried anew before it gives up.
const PUBLISH_TRIES: usize = 8;
/// Versions of a deleted function whose sandboxes are told to end.
const VERSIONS_MAX: usize = 1000;

/// What the sender says that the code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Archive,
    Source,
    /// Its first bytes tell.
    Either,
}

/// Code as it was sent.
#[derive(Clone, Debug)]
pub struct Upload {
    pub bytes: Bytes,
    pub file_name: Option<String>,
    pub form: Form,
}

/// What a next version is made from.
#[derive(Clone, Copy, Debug)]
struct Basis {
    /// Defaults, rather than the current version.
    afresh: bool,
    /// No other version than this.
    only: Option<u32>,
}

/// Code as it is stored.
#[derive(Clone, Copy, Debug)]
struct Stored {
    digest: Digest,
    bytes: u64,
}

impl Controller {
    /// A new function. A name that the owner has already is an error.
    pub async fn create_function(
        &self,
        owner: &Owner,
        name: &str,
        settings: Settings,
        code: Upload,
    ) -> Result<Arc<Current>, ApiError> {
        check_name(name)?;
        self.check_disk()?;
        let spec = settings.complete(&self.config.limits)?;
        if self.functions.registry().function_named(owner, name).await?.is_some() {
            return Err(RegistryError::NameTaken.into());
        }
        self.check_room(owner).await?;
        let stored = self.store_code(spec.runtime, spec.handler.as_deref(), code).await?;
        let now = self.now();
        let function = Function {
            id: ids::function_id(now),
            owner: owner.clone(),
            name: name.into(),
            current: 1,
            created_at: now,
            updated_at: now,
        };
        let version = self.version(&function, 1, spec, stored);
        self.functions.registry().create(&function, &version).await?;
        self.changed(function.id);
        self.executor.prepare(&version);
        Ok(Arc::new(Current { function, version: Arc::new(version) }))
    }

    /// The next version of a function, with what `settings` and `code` don't name as it is. `afresh`: with the defaults instead.
    pub async fn publish_version(
        &self,
        id: FunctionId,
        settings: Settings,
        code: Option<Upload>,
        afresh: bool,
    ) -> Result<Arc<Current>, ApiError> {
        self.publish(id, settings, code, Basis { afresh, only: None }).await
    }

    /// The next version after this one, with other settings; a conflict where another one is current by now.
    pub(super) async fn publish_over(&self, version: VersionKey, settings: Settings) -> Result<Arc<Current>, ApiError> {
        self.publish(version.function, settings, None, Basis { afresh: false, only: Some(version.number) }).await
    }

    async fn publish(
        &self,
        id: FunctionId,
        settings: Settings,
        mut code: Option<Upload>,
        Basis { afresh, only }: Basis,
    ) -> Result<Arc<Current>, ApiError> {
        self.check_disk()?;
        let mut uploaded = None;
        for _ in 0..PUBLISH_TRIES {
            let current = self.read_current(id).await?;
            if only.is_some_and(|only| only != current.function.current) {
                break;
            }
            let spec = match afresh {
                true => settings.clone().complete(&self.config.limits)?,
                false => settings.clone().over(Spec::of(&current.version), &self.config.limits)?,
            };
            if let Some(code) = code.take() {
                uploaded = Some(self.store_code(spec.runtime, spec.handler.as_deref(), code).await?);
            }
            let stored = match uploaded {
                Some(stored) => stored,
                None => self.keep_code(&current.version, &spec).await?,
            };
            let version = self.version(&current.function, current.function.current + 1, spec, stored);
            match self.functions.registry().publish(&version).await {
                Ok(function) => {
                    self.executor.retire(current.version.key());
                    self.changed(id);
                    self.executor.prepare(&version);
                    return Ok(Arc::new(Current { function, version: Arc::new(version) }));
                }
                Err(RegistryError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RegistryError::Conflict.into())
    }

    /// `upload`: creates the function, or publishes its next version where the name is taken.
    pub async fn upload(
        &self,
        owner: &Owner,
        name: &str,
        settings: Settings,
        code: Upload,
    ) -> Result<Arc<Current>, ApiError> {
        check_name(name)?;
        if let Some(function) = self.functions.registry().function_named(owner, name).await? {
            return self.publish_version(function.id, settings, Some(code), false).await;
        }
        match self.create_function(owner, name, settings.clone(), code.clone()).await {
            Err(error) if error.code == Code::FunctionExists => {}
            other => return other,
        }
        // Somebody created it meanwhile.
        let function = self.functions.registry().function_named(owner, name).await?.ok_or_else(function_not_found)?;
        self.publish_version(function.id, settings, Some(code), false).await
    }

    /// No new calls; those in flight finish.
    pub async fn delete_function(&self, id: FunctionId) -> Result<(), ApiError> {
        let versions = self.functions.registry().versions(id, VERSIONS_MAX).await?;
        self.functions.registry().delete(id).await?;
        self.changed(id);
        // After the function: what is left by a crash in between opens nothing, and goes at the next start.
        for key in self.keys.store().revoke_of(id).await? {
            self.forget_key(key);
        }
        for version in versions {
            self.executor.retire(version.key());
        }
        Ok(())
    }

    pub fn forget_key(&self, id: KeyId) {
        self.keys.forget(id);
        self.bus.publish(News::KeyRevoked(id));
    }

    fn changed(&self, id: FunctionId) {
        self.functions.forget(id);
        self.bus.publish(News::FunctionChanged(id));
    }

    /// Past the cache: an update must be based on what is stored.
    async fn read_current(&self, id: FunctionId) -> Result<Current, ApiError> {
        let registry = self.functions.registry();
        let function = registry.function(id).await?.ok_or_else(function_not_found)?;
        let key = VersionKey { function: id, number: function.current };
        let version = registry.version(key).await?.ok_or_else(function_not_found)?;
        Ok(Current { function, version })
    }

    fn version(&self, function: &Function, number: u32, spec: Spec, code: Stored) -> Version {
        Version {
            function_id: function.id,
            number,
            owner: function.owner.clone(),
            function_name: function.name.clone(),
            description: spec.description,
            runtime: spec.runtime,
            handler: spec.handler,
            memory_mb: spec.memory_mb,
            auto_memory: spec.auto_memory,
            timeout_ms: spec.timeout_ms,
            env: spec.env,
            code: code.digest,
            code_bytes: code.bytes,
            created_at: self.now(),
        }
    }

    fn check_disk(&self) -> Result<(), ApiError> {
        if self.disk.room() != Room::Full {
            return Ok(());
        }
        let sentence = "the disk is full, and nothing is deployed; try again later, or ask the operator for room";
        Err(ApiError::new(Code::DiskFull, sentence))
    }

    async fn check_room(&self, owner: &Owner) -> Result<(), ApiError> {
        let max = self.config.limits.functions_per_owner;
        if self.functions.registry().count(Some(owner)).await? < max {
            return Ok(());
        }
        let sentence = format!("you have {max} functions, as many as may be; delete one first");
        Err(ApiError::new(Code::TooManyFunctions, sentence))
    }

    async fn store_code(&self, runtime: Runtime, handler: Option<&str>, code: Upload) -> Result<Stored, ApiError> {
        let package = match check_form(&code)? {
            Form::Archive => code.bytes,
            _ => {
                self.packages.wrap_source(runtime, handler, code.file_name.as_deref(), &code.bytes).map_err(refused)?
            }
        };
        if package.len() as u64 > self.config.limits.zip_bytes {
            return Err(ApiError::too_large("the code", self.config.limits.zip_bytes));
        }
        let Inspected { package, needs_build } = self.inspect(runtime, handler, package).await?;
        let package = if needs_build { self.builder.build(runtime, package).await? } else { package };
        let bytes = package.len() as u64;
        Ok(Stored { digest: self.artifacts.put(package).await?, bytes })
    }

    /// The code that a version has already, looked at again where it is to be called in another way.
    async fn keep_code(&self, version: &Version, spec: &Spec) -> Result<Stored, ApiError> {
        if (spec.runtime, &spec.handler) != (version.runtime, &version.handler) {
            let package = self.artifacts.get(version.code).await?;
            if self.inspect(spec.runtime, spec.handler.as_deref(), package).await?.needs_build {
                let sentence = "the stored code would have to be compiled for this runtime; send the code again";
                return Err(ApiError::new(Code::InvalidPackage, sentence));
            }
        }
        Ok(Stored { digest: version.code, bytes: version.code_bytes })
    }

    /// Looks the package through, off the async threads.
    async fn inspect(&self, runtime: Runtime, handler: Option<&str>, package: Bytes) -> Result<Inspected, ApiError> {
        let (packages, limits) = (self.packages.clone(), self.config.limits.clone());
        let handler = handler.map(str::to_owned);
        let inspecting =
            tokio::task::spawn_blocking(move || packages.inspect(package, runtime, handler.as_deref(), &limits));
        match inspecting.await {
            Ok(Ok(inspected)) => Ok(inspected),
            Ok(Err(error)) => Err(refused(error)),
            Err(error) => {
                tracing::error!(%error, "a package could not be inspected");
                Err(ApiError::new(Code::InvalidPackage, "the archive could not be read; pack it again"))
            }
        }
    }
}

/// `Archive` or `Source`, by what the code is and what it was said to be.
fn check_form(code: &Upload) -> Result<Form, ApiError> {
    let invalid = |sentence: &str| Err(ApiError::new(Code::InvalidPackage, sentence));
    if code.bytes.is_empty() {
        return invalid("the code is empty; send a zip archive or a source file");
    }
    let form = match code.form {
        Form::Either if is_archive(&code.bytes) => Form::Archive,
        Form::Either => Form::Source,
        said => said,
    };
    match form {
        Form::Archive if !is_archive(&code.bytes) => invalid("this is not a zip archive; pack the files as one"),
        form => Ok(form),
    }
}

fn refused(error: PackageError) -> ApiError {
    match error {
        PackageError::TooLarge(sentence) => ApiError::new(Code::PayloadTooLarge, sentence),
        PackageError::Invalid(sentence) => ApiError::new(Code::InvalidPackage, sentence),
    }
}
