# What several files need to know.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_region.this.name

  tags = merge(var.tags, { "faasd:fleet" = var.name })

  has_workers = var.workers != null
  # What nodes in the public subnets do.
  controller_role = local.has_workers ? "controller" : "both"

  https       = var.api.certificate_parameter != null
  api_port    = local.https ? 443 : 8080
  worker_port = 8081

  controller_group = "${var.name}-controllers"
  worker_group     = "${var.name}-workers"

  # Namespace and name of the figure by which workers are scaled.
  metrics_namespace = var.name
  work_metric       = "WorkPerWorker"
}
