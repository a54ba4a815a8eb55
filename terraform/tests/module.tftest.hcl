# The module with AWS itself left out: what it promises whatever the account. `terraform test` in terraform/.

mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_resource "aws_eip" {
    defaults = {
      allocation_id = "eipalloc-0123456789abcdef0"
      public_dns    = "ec2-203-0-113-9.eu-central-1.compute.amazonaws.com"
      public_ip     = "203.0.113.9"
    }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/faasd" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::faasd-artifacts" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = {
      arn = "arn:aws:sqs:eu-central-1:123456789012:faasd"
      url = "https://sqs.eu-central-1.amazonaws.com/123456789012/faasd"
    }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-central-1:123456789012:faasd-alarms" }
  }
  mock_resource "aws_dynamodb_table" {
    defaults = { arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/faasd" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/faasd/records" }
  }
  mock_resource "aws_elasticache_replication_group" {
    defaults = { primary_endpoint_address = "master.faasd.example" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
  mock_resource "aws_security_group" {
    defaults = { id = "sg-0123456789abcdef0" }
  }
}

variables {
  image_id     = "ami-0123456789abcdef0"
  secrets_path = "/faasd"
  api          = { allowed_cidrs = ["203.0.113.0/24"] }
}

run "one_node_does_both" {
  assert {
    condition     = length(aws_autoscaling_group.workers) == 0 && length(aws_subnet.private) == 0 && length(aws_vpc_endpoint.interface) == 0
    error_message = "one node needs no workers, no private subnets and no endpoint that costs"
  }
  assert {
    condition     = strcontains(local.configuration["both"], "role = \"both\"") && strcontains(base64decode(aws_launch_template.controllers.user_data), "faasd.service")
    error_message = "it must run as both"
  }
  assert {
    condition     = strcontains(local.configuration["both"], "elastic_ip_allocation = \"eipalloc-0123456789abcdef0\"")
    error_message = "it must know the address that it is to take"
  }
  assert {
    condition     = length([for s in jsondecode(aws_iam_role_policy.controllers.policy).Statement : s if s.Sid == "JobsOut"]) == 1
    error_message = "it must be allowed to take jobs, having no workers"
  }
  assert {
    condition     = aws_launch_template.controllers.metadata_options[0].http_tokens == "required" && aws_launch_template.controllers.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "a sandbox or a proxy could reach the instance's credentials"
  }
  assert {
    condition     = alltrue([for device in aws_launch_template.controllers.block_device_mappings : device.ebs[0].encrypted == "true"])
    error_message = "disks must be encrypted"
  }
  assert {
    condition     = aws_launch_template.controllers.credit_specification[0].cpu_credits == "standard"
    error_message = "a burstable node must not be billed for credits unasked"
  }
  assert {
    condition     = alltrue([for table in aws_dynamodb_table.store : table.deletion_protection_enabled && table.billing_mode == "PAY_PER_REQUEST"])
    error_message = "tables must be protected and cost nothing unused"
  }
}

run "a_fleet" {
  variables {
    workers = { min = 1, max = 4, drain_s = 60 }
    redis   = { kind = "controller" }
  }

  assert {
    condition     = strcontains(local.configuration["worker"], "elastic_ip_allocation = \"\"")
    error_message = "no worker may want the controllers' address"
  }
  assert {
    condition     = toset(keys(aws_vpc_endpoint.interface)) == toset(["sqs", "ssm"])
    error_message = "workers need SQS and SSM, and nothing else may cost unasked"
  }
  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : length(endpoint.subnet_ids) == 1])
    error_message = "an endpoint costs by zone: one unless asked for more"
  }
  assert {
    condition     = !tobool(aws_launch_template.workers[0].network_interfaces[0].associate_public_ip_address)
    error_message = "workers may have no public address"
  }
  assert {
    condition     = aws_autoscaling_group.workers[0].capacity_rebalance && aws_autoscaling_group.workers[0].mixed_instances_policy[0].instances_distribution[0].on_demand_percentage_above_base_capacity == 0
    error_message = "workers must be Spot with rebalance"
  }
  assert {
    condition     = length(aws_autoscaling_policy.work) == 1 && aws_autoscaling_policy.work[0].target_tracking_configuration[0].customized_metric_specification[0].metric_name == "WorkPerWorker"
    error_message = "work alone scales workers"
  }
  assert {
    condition = length(setintersection(
      toset(flatten([for s in jsondecode(aws_iam_role_policy.workers[0].policy).Statement : s.Action])),
      ["s3:DeleteObject", "ec2:AssociateAddress", "cloudwatch:PutMetricData"],
    )) == 0
    error_message = "a worker may do what only controllers do"
  }
  assert {
    condition = length(setintersection(
      toset(flatten([for s in jsondecode(aws_iam_role_policy.controllers.policy).Statement : s.Action])),
      ["sqs:ChangeMessageVisibility"],
    )) == 0
    error_message = "a controller may do what only workers do"
  }
  assert {
    condition     = strcontains(local.configuration["worker"], "url = \"redis://ec2-203-0-113-9.eu-central-1.compute.amazonaws.com:6379\"") && strcontains(local.configuration["worker"], "drain_ms = 60000")
    error_message = "workers must find Redis on the controller, and drain as long as they were told"
  }
  assert {
    condition     = strcontains(local.configuration["controller"], "url = \"redis://127.0.0.1:6379\"")
    error_message = "a controller must find its own Redis before it holds the address"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.workers_from_controllers : rule.cidr_ipv4 == null])
    error_message = "workers are reached by controllers alone"
  }
}

run "several_controllers_and_a_valkey" {
  variables {
    controllers      = { min = 2, max = 3 }
    workers          = {}
    redis            = { kind = "elasticache", nodes = 2 }
    redis_auth_token = "an-auth-token-of-the-test"
    api              = { allowed_cidrs = ["0.0.0.0/0"], certificate_parameter = "/own/tls.crt", key_parameter = "/own/tls.key" }
  }

  assert {
    condition     = aws_elasticache_replication_group.fleet[0].transit_encryption_enabled && aws_elasticache_replication_group.fleet[0].at_rest_encryption_enabled == "true" && aws_elasticache_replication_group.fleet[0].automatic_failover_enabled
    error_message = "Valkey must be encrypted and survive one of two nodes"
  }
  assert {
    condition     = strcontains(local.configuration["controller"], "certificate = \"/run/faasd/tls.crt\"") && !strcontains(local.configuration["worker"], "[tls]")
    error_message = "controllers speak HTTPS"
  }
  assert {
    condition     = startswith(output.url, "https://")
    error_message = "the address must say so"
  }
}

run "further_settings_go_over_the_file" {
  variables {
    settings = { "pool.keep_alive_s" = "60" }
  }

  assert {
    condition     = strcontains(base64decode(aws_launch_template.controllers.user_data), "FAASD_POOL__KEEP_ALIVE_S")
    error_message = "settings must reach the node"
  }
}

run "keys_in_clear_over_the_internet_are_refused" {
  command = plan
  variables {
    api = { allowed_cidrs = ["0.0.0.0/0"] }
  }
  expect_failures = [var.api]
}

run "secrets_in_settings_are_refused" {
  command = plan
  variables {
    settings = { "redis.password" = "x" }
  }
  expect_failures = [var.settings]
}

run "two_controllers_with_a_redis_each_are_refused" {
  command = plan
  variables {
    controllers = { min = 1, max = 2 }
    workers     = {}
    redis       = { kind = "controller" }
  }
  expect_failures = [var.redis]
}

run "a_drain_longer_than_the_group_waits_is_refused" {
  command = plan
  variables {
    workers = { drain_s = 100, lifecycle_wait_s = 90 }
  }
  expect_failures = [var.workers]
}

run "burstable_beside_others_is_refused" {
  command = plan
  variables {
    workers = { instance_types = ["t4g.small", "c7g.large"] }
  }
  expect_failures = [var.workers]
}

run "records_of_workers_without_a_way_out_are_refused" {
  command = plan
  variables {
    workers     = {}
    records_log = { enabled = true }
  }
  expect_failures = [var.records_log]
}
