# A controller, and workers on Spot that come and go with the work. Redis runs on the controller; with a password for ElastiCache it is
# a Valkey of its own, and controllers may be several.
#
#   terraform init && terraform apply -var 'callers=["203.0.113.0/24"]' -var region=eu-central-1

terraform {
  required_version = ">= 1.11.0"
}

provider "aws" {
  region = var.region
}

module "secrets" {
  source = "../../secrets"

  name             = var.name
  redis_auth_token = var.redis_auth_token
}

module "faasd" {
  source = "../.."

  name         = var.name
  image_id     = var.image_id
  secrets_path = module.secrets.path
  tags         = { project = var.name }

  api = {
    allowed_cidrs         = var.callers
    certificate_parameter = var.certificate_parameter
    key_parameter         = var.key_parameter
  }

  controllers = {
    min           = var.controllers_max
    max           = var.controllers_max
    instance_type = "t4g.small"
  }

  workers = {
    min            = 1
    max            = var.workers_max
    instance_types = ["c7g.large", "m7g.large", "c6g.large", "m6g.large", "r6g.large"]
  }

  redis            = { kind = nonsensitive(var.redis_auth_token == null) ? "controller" : "elasticache" }
  redis_auth_token = var.redis_auth_token

  # Endpoints in one zone: half the price; should that zone fail, workers elsewhere are cut off until it is back.
  network = { zones = 2, endpoint_zones = 1 }

  alarms       = { emails = var.emails }
  protect_data = var.protect_data
}
