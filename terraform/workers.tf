# Nodes that run functions: Spot, of whatever kind is cheap and unlikely to be taken back.

resource "aws_launch_template" "workers" {
  count = local.has_workers ? 1 : 0

  name                                 = local.worker_group
  image_id                             = local.image_id
  user_data                            = base64encode(local.user_data["worker"])
  ebs_optimized                        = true
  instance_initiated_shutdown_behavior = "terminate"
  update_default_version               = true

  iam_instance_profile {
    arn = aws_iam_instance_profile.workers[0].arn
  }

  network_interfaces {
    associate_public_ip_address = false
    security_groups             = [aws_security_group.workers[0].id]
    delete_on_termination       = true
  }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "enabled"
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = var.workers.disk_gb
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "credit_specification" {
    for_each = startswith(var.workers.instance_types[0], "t") ? [var.workers.cpu_credits] : []

    content {
      cpu_credits = credit_specification.value
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = local.worker_group, "faasd:node" = local.worker_group })
    }
  }

  tags = local.tags
}

resource "aws_autoscaling_group" "workers" {
  count = local.has_workers ? 1 : 0

  name                = local.worker_group
  min_size            = var.workers.min
  max_size            = var.workers.max
  vpc_zone_identifier = [for subnet in aws_subnet.private : subnet.id]
  health_check_type   = "EC2"
  # A Spot instance that is likely to go gets a successor before it goes.
  capacity_rebalance        = true
  default_instance_warmup   = 60
  health_check_grace_period = 60
  enabled_metrics           = ["GroupInServiceInstances", "GroupDesiredCapacity"]
  wait_for_capacity_timeout = "0"

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = var.workers.on_demand_base
      on_demand_percentage_above_base_capacity = 0
      spot_allocation_strategy                 = "price-capacity-optimized"
    }

    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.workers[0].id
        version            = aws_launch_template.workers[0].latest_version
      }

      dynamic "override" {
        for_each = var.workers.instance_types

        content {
          instance_type = override.value
        }
      }
    }
  }

  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
    }
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = local.worker_group })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }

  # Scaling decides how many there are.
  lifecycle {
    ignore_changes = [desired_capacity]
  }

  depends_on = [aws_iam_role_policy.workers, aws_vpc_endpoint.gateway, aws_vpc_endpoint.interface]
}

# What the daemon drains in. It says itself when it is done; unheard, the instance goes when the time is over.
resource "aws_autoscaling_lifecycle_hook" "workers" {
  count = local.has_workers ? 1 : 0

  name                   = "drain"
  autoscaling_group_name = aws_autoscaling_group.workers[0].name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = var.workers.lifecycle_wait_s
  default_result         = "CONTINUE"
}

# By work alone: seconds of work before each worker, which the leading controller publishes. Neither processor nor queue length says as much.
resource "aws_autoscaling_policy" "work" {
  count = local.has_workers ? 1 : 0

  name                      = "work-per-worker"
  autoscaling_group_name    = aws_autoscaling_group.workers[0].name
  policy_type               = "TargetTrackingScaling"
  estimated_instance_warmup = 60

  target_tracking_configuration {
    target_value = var.workers.work_per_worker

    customized_metric_specification {
      namespace   = local.metrics_namespace
      metric_name = local.work_metric
      statistic   = "Average"
    }
  }
}
