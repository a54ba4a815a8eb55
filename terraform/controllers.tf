# Nodes that take calls: as many as wanted, one of which holds the Elastic IP.

resource "aws_eip" "api" {
  domain = "vpc"
  tags   = merge(local.tags, { Name = "${var.name}-api" })

  depends_on = [aws_internet_gateway.fleet]
}

resource "aws_launch_template" "controllers" {
  name                                 = local.controller_group
  image_id                             = local.image_id
  instance_type                        = var.controllers.instance_type
  user_data                            = base64encode(local.user_data[local.controller_role])
  ebs_optimized                        = true
  instance_initiated_shutdown_behavior = "terminate"
  update_default_version               = true

  iam_instance_profile {
    arn = aws_iam_instance_profile.controllers.arn
  }

  network_interfaces {
    # To reach AWS before it holds the Elastic IP, and when it doesn't.
    associate_public_ip_address = true
    security_groups             = [aws_security_group.controllers.id]
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
      volume_size           = var.controllers.disk_gb
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "credit_specification" {
    for_each = startswith(var.controllers.instance_type, "t") ? [var.controllers.cpu_credits] : []

    content {
      cpu_credits = credit_specification.value
    }
  }

  dynamic "instance_market_options" {
    for_each = var.controllers.spot ? ["spot"] : []

    content {
      market_type = "spot"
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = local.controller_group, "faasd:node" = local.controller_group })
    }
  }

  tags = local.tags
}

resource "aws_autoscaling_group" "controllers" {
  name                = local.controller_group
  min_size            = var.controllers.min
  max_size            = var.controllers.max
  vpc_zone_identifier = [for subnet in aws_subnet.public : subnet.id]
  health_check_type   = "EC2"
  # Boot, secrets, ready.
  default_instance_warmup   = 90
  health_check_grace_period = 90
  # Free; the alarm on a missing controller reads it.
  enabled_metrics           = ["GroupInServiceInstances", "GroupDesiredCapacity"]
  wait_for_capacity_timeout = "0"

  launch_template {
    id      = aws_launch_template.controllers.id
    version = aws_launch_template.controllers.latest_version
  }

  # Another image or configuration: first a new node, then an old one less.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 200
    }
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = local.controller_group })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }

  # A node that boots must find what it may do and know.
  depends_on = [aws_iam_role_policy.controllers, aws_route.internet]
}

# What the daemon drains in, and hands the Elastic IP over.
resource "aws_autoscaling_lifecycle_hook" "controllers" {
  name                   = "drain"
  autoscaling_group_name = aws_autoscaling_group.controllers.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = 60
  default_result         = "CONTINUE"
}
