# One node that does both, and nothing that costs while nobody calls but the node, its disk and its address.
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

  name = var.name
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

  controllers = { instance_type = "t4g.small" }
  # Its subnets cost nothing, and a node whose zone fails comes up in another.
  network = { zones = 2 }
  # Node, queue and log are in one place: no endpoint is needed.
  records_log = { enabled = true }

  alarms       = { emails = var.emails }
  protect_data = var.protect_data
}
