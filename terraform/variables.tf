# What a caller of the module decides. Everything has a default but who may reach the API.

variable "name" {
  description = "What every resource's name begins with; one fleet each."
  type        = string
  default     = "faasd"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name)) && !startswith(var.name, "aws") && !startswith(var.name, "ssm")
    error_message = "The name must be 2 to 21 lower-case letters, digits and hyphens, begin with a letter, and with neither \"aws\" nor \"ssm\"."
  }
}

variable "tags" {
  description = "Tags that every resource gets beside faasd:fleet."
  type        = map(string)
  default     = {}
}

variable "architecture" {
  description = "Processors of all nodes, and of the image: arm64 costs a fifth less."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "The architecture must be \"arm64\" or \"x86_64\"."
  }
}

variable "image_id" {
  description = "The image that packer built; null: the newest one of this account, by its tags."
  type        = string
  default     = null

  validation {
    condition     = var.image_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.image_id))
    error_message = "The image must be an id like ami-0123456789abcdef0."
  }
}

variable "api" {
  description = "Who may reach the API, and over what. With certificate and key (names of parameters in the parameter store, PEM each) it is HTTPS on port 443, else HTTP on 8080."
  type = object({
    allowed_cidrs         = list(string)
    certificate_parameter = optional(string)
    key_parameter         = optional(string)
  })

  validation {
    condition     = length(var.api.allowed_cidrs) > 0 && alltrue([for cidr in var.api.allowed_cidrs : can(cidrhost(cidr, 0))])
    error_message = "api.allowed_cidrs must name at least one network, like 203.0.113.0/24."
  }

  validation {
    condition     = (var.api.certificate_parameter == null) == (var.api.key_parameter == null)
    error_message = "api.certificate_parameter and api.key_parameter belong together."
  }

  validation {
    condition     = var.api.certificate_parameter != null || !contains(var.api.allowed_cidrs, "0.0.0.0/0")
    error_message = "Keys would travel in clear over the internet: give api.certificate_parameter and api.key_parameter, or name the networks of your callers."
  }
}

variable "controllers" {
  description = "The nodes in the public subnets. Without workers each does both: it takes calls and runs them."
  type = object({
    min           = optional(number, 1)
    max           = optional(number, 1)
    instance_type = optional(string, "t4g.small")
    # A single node on Spot is away for two to three minutes whenever its place is taken back.
    spot    = optional(bool, false)
    disk_gb = optional(number, 16)
    # "unlimited" is billed for what it uses beyond its credits, "standard" becomes slow instead.
    cpu_credits = optional(string, "standard")
  })
  default = {}

  validation {
    condition     = var.controllers.min >= 1 && var.controllers.max >= var.controllers.min
    error_message = "controllers.min must be 1 or more, and controllers.max not below it."
  }

  validation {
    condition     = contains(["standard", "unlimited"], var.controllers.cpu_credits)
    error_message = "controllers.cpu_credits must be \"standard\" or \"unlimited\"."
  }

  validation {
    condition     = var.controllers.disk_gb >= 8
    error_message = "controllers.disk_gb must be 8 or more: the image has 8."
  }
}

variable "workers" {
  description = "The nodes that run functions, in private subnets; null: there are none, and controllers run functions themselves."
  type = object({
    min = optional(number, 1)
    max = optional(number, 10)
    # Many kinds: the more there are, the seldomer Spot has none.
    instance_types   = optional(list(string), ["c7g.large", "m7g.large", "c6g.large", "m6g.large"])
    on_demand_base   = optional(number, 0)
    disk_gb          = optional(number, 20)
    cpu_credits      = optional(string, "standard")
    work_per_worker  = optional(number, 1)
    drain_s          = optional(number, 90)
    lifecycle_wait_s = optional(number, 120)
  })
  default = null

  validation {
    condition     = var.workers == null || try(var.workers.min >= 0 && var.workers.max >= max(var.workers.min, 1), false)
    error_message = "workers.min must be 0 or more, and workers.max neither below it nor 0."
  }

  validation {
    condition     = var.workers == null || length(distinct([for type in try(var.workers.instance_types, []) : startswith(type, "t")])) == 1
    error_message = "workers.instance_types must all be burstable (t…) or none: one launch template serves them all, and only burstable ones take CPU credits."
  }

  validation {
    condition     = var.workers == null || contains(["standard", "unlimited"], try(var.workers.cpu_credits, "standard"))
    error_message = "workers.cpu_credits must be \"standard\" or \"unlimited\"."
  }

  validation {
    condition     = var.workers == null || try(var.workers.drain_s < var.workers.lifecycle_wait_s, false)
    error_message = "workers.drain_s must be below workers.lifecycle_wait_s: the group ends what is not done by then."
  }

  validation {
    condition     = var.workers == null || try(var.workers.drain_s <= 110, false)
    error_message = "workers.drain_s must be 110 or less: a Spot instance has two minutes from its notice to its end."
  }

  validation {
    condition     = var.workers == null || try(var.workers.work_per_worker > 0, false)
    error_message = "workers.work_per_worker must be above 0: seconds of work that a worker should have before it."
  }
}

variable "redis" {
  description = "What nodes tell each other news through. none: they ask the store; controller: on the only controller, for nothing; elasticache: a Valkey of AWS, over TLS."
  type = object({
    kind      = optional(string, "none")
    node_type = optional(string, "cache.t4g.micro")
    # A second one takes over when the first dies.
    nodes = optional(number, 1)
  })
  default = {}

  validation {
    condition     = contains(["none", "controller", "elasticache"], var.redis.kind)
    error_message = "redis.kind must be \"none\", \"controller\" or \"elasticache\"."
  }

  validation {
    condition     = var.redis.kind != "controller" || var.controllers.max == 1
    error_message = "Redis on the controller needs controllers.max = 1: several would each have their own."
  }

  validation {
    condition     = var.redis.kind != "elasticache" || var.redis_auth_token != null
    error_message = "redis.kind = \"elasticache\" needs redis_auth_token."
  }
}

variable "secrets_path" {
  description = "Where nodes find their secrets in the parameter store: `path` of the module in secrets/, which makes them."
  type        = string

  validation {
    condition     = can(regex("^(/[A-Za-z0-9_.-]+)+$", var.secrets_path))
    error_message = "secrets_path must be like /faasd."
  }
}

variable "redis_auth_token" {
  description = "Password of ElastiCache: 16 to 128 printable characters. The one secret that the state holds, because ElastiCache has no write-only argument for it: encrypt the state."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.redis_auth_token == null || can(regex("^[A-Za-z0-9!&#$^<>-]{16,128}$", var.redis_auth_token))
    error_message = "redis_auth_token must be 16 to 128 letters, digits and characters of !&#$^<>-."
  }
}

variable "network" {
  description = "The fleet's own network, in so many zones; interface endpoints in the first endpoint_zones of them, since each costs by zone."
  type = object({
    cidr           = optional(string, "10.71.0.0/16")
    zones          = optional(number, 2)
    endpoint_zones = optional(number, 1)
  })
  default = {}

  validation {
    condition     = can(cidrsubnet(var.network.cidr, 8, 0))
    error_message = "network.cidr must leave eight bits for subnets, like 10.71.0.0/16."
  }

  validation {
    condition     = var.network.zones >= 1 && var.network.zones <= 6 && var.network.endpoint_zones >= 1 && var.network.endpoint_zones <= var.network.zones
    error_message = "network.zones must be 1 to 6, and network.endpoint_zones not more."
  }
}

variable "optional_endpoints" {
  description = "Interface endpoints beside SQS and SSM, which workers can't do without: see endpoints.tf for what each is for and costs."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.optional_endpoints, ["ssmmessages", "logs", "autoscaling"])) == 0
    error_message = "optional_endpoints may hold \"ssmmessages\", \"logs\" and \"autoscaling\"."
  }
}

variable "records_log" {
  description = "Whether final records of calls are sent to CloudWatch Logs, and kept there for so many days. The alarm on failed calls reads them. From workers this needs the endpoint \"logs\"."
  type = object({
    enabled        = optional(bool, false)
    retention_days = optional(number, 14)
  })
  default = {}

  validation {
    condition     = !var.records_log.enabled || var.workers == null || contains(var.optional_endpoints, "logs")
    error_message = "records_log of workers needs optional_endpoints = [\"logs\"]: they have no other way out."
  }

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.records_log.retention_days)
    error_message = "records_log.retention_days must be a period that CloudWatch Logs knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545 or 731."
  }
}

variable "prometheus_security_group_id" {
  description = "Security group of a Prometheus of yours in this network, which may then scrape every node; null: there is none."
  type        = string
  default     = null
}

variable "alarms" {
  description = "Who is told, by mail (each address confirms once), and from what on."
  type = object({
    emails               = optional(list(string), [])
    oldest_job_s         = optional(number, 60)
    failed_calls_per_5_m = optional(number, 50)
  })
  default = {}
}

variable "retention_days" {
  description = "How long records of calls, what they printed and their results are kept."
  type        = number
  default     = 30

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 3650 && floor(var.retention_days) == var.retention_days
    error_message = "retention_days must be whole days, 1 to 3650."
  }
}

variable "protect_data" {
  description = "Whether tables and bucket refuse to be destroyed while they hold data."
  type        = bool
  default     = true
}

variable "settings" {
  description = "Further configuration of every node, by key as in config/faasd.toml: {\"pool.keep_alive_s\" = \"60\"}. It is shown in user data: no secrets."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.settings) : can(regex("^[a-z0-9_]+(\\.[a-z0-9_]+)*$", key)) && !can(regex("(secret|password|token|secrets\\.key)$", key)) && key != "retention.logs_s"])
    error_message = "settings must be keys like pool.keep_alive_s, none that holds a secret, and not retention.logs_s, which retention_days decides for the bucket as well."
  }

  validation {
    condition     = alltrue([for value in values(var.settings) : !can(regex("[\\n\\r\"\\\\$`]", value))])
    error_message = "settings must have values without quotes, backslashes, dollar signs and line ends."
  }
}
