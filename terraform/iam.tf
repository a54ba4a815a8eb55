# Who may do what. docs/iam.md has each statement with its reason; scripts/deploy-check.sh compares the two.

locals {
  arn_here = "arn:${local.partition}"
  object   = "${aws_s3_bucket.artifacts.arn}/*"
  group_arns = {
    controllers = "${local.arn_here}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${local.controller_group}"
    workers     = "${local.arn_here}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${local.worker_group}"
  }

  table_actions = [
    "dynamodb:BatchGetItem",
    "dynamodb:BatchWriteItem",
    "dynamodb:ConditionCheckItem",
    "dynamodb:DeleteItem",
    "dynamodb:DescribeTable",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Query",
    "dynamodb:UpdateItem",
  ]
  tables_statement = {
    for group, tables in {
      controllers = keys(local.tables)
      # Who may call is none of a worker's business.
      workers = setsubtract(keys(local.tables), ["keys"])
      } : group => {
      Sid    = "Tables"
      Effect = "Allow"
      Action = local.table_actions
      Resource = flatten([
        for table in tables : [aws_dynamodb_table.store[table].arn, "${aws_dynamodb_table.store[table].arn}/index/*"]
      ])
    }
  }

  # Of every node.
  node_statements = concat([
    {
      Sid      = "Artifacts"
      Effect   = "Allow"
      Action   = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"]
      Resource = local.object
    },
    {
      # Without it a missing object is "forbidden" instead of "not found".
      Sid      = "ArtifactsThere"
      Effect   = "Allow"
      Action   = "s3:ListBucket"
      Resource = aws_s3_bucket.artifacts.arn
    },
    {
      Sid      = "Secrets"
      Effect   = "Allow"
      Action   = "ssm:GetParameter"
      Resource = "${local.arn_here}:ssm:${local.region}:${local.account}:parameter${var.secrets_path}/*"
    },
    {
      # Session Manager's own calls; they name no resource. Not the managed policy for it: that one may read every parameter.
      Sid    = "SessionManager"
      Effect = "Allow"
      Action = [
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
      ]
      Resource = "*"
    },
    ],
    [for group in aws_cloudwatch_log_group.records : {
      Sid      = "RecordsLog"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "${group.arn}:*"
    }],
  )

  # Of those that take calls.
  take_statements = concat([
    {
      Sid      = "JobsIn"
      Effect   = "Allow"
      Action   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
      Resource = aws_sqs_queue.jobs.arn
    },
    {
      # PutMetricData names no resource; the namespace is its bound.
      Sid       = "Signal"
      Effect    = "Allow"
      Action    = "cloudwatch:PutMetricData"
      Resource  = "*"
      Condition = { StringEquals = { "cloudwatch:namespace" = local.metrics_namespace } }
    },
    {
      Sid      = "ElasticIp"
      Effect   = "Allow"
      Action   = "ec2:AssociateAddress"
      Resource = "${local.arn_here}:ec2:${local.region}:${local.account}:elastic-ip/${aws_eip.api.allocation_id}"
    },
    {
      # The other end of the association: nodes of this fleet alone.
      Sid    = "ElasticIpTo"
      Effect = "Allow"
      Action = "ec2:AssociateAddress"
      Resource = [
        "${local.arn_here}:ec2:${local.region}:${local.account}:instance/*",
        "${local.arn_here}:ec2:${local.region}:${local.account}:network-interface/*",
      ]
      Condition = { StringEquals = { "aws:ResourceTag/faasd:node" = local.controller_group } }
    },
    {
      # To see who holds it. It names no resource.
      Sid      = "ElasticIpHolder"
      Effect   = "Allow"
      Action   = "ec2:DescribeAddresses"
      Resource = "*"
    }],
    [for name in compact([var.api.certificate_parameter, var.api.key_parameter]) : {
      Sid      = name == var.api.key_parameter ? "TlsKey" : "TlsCertificate"
      Effect   = "Allow"
      Action   = "ssm:GetParameter"
      Resource = "${local.arn_here}:ssm:${local.region}:${local.account}:parameter/${trimprefix(name, "/")}"
    }],
  )

  # Of those that run functions.
  run_statements = [
    {
      # Sending too: a job that is given back without an attempt is sent anew.
      Sid      = "JobsOut"
      Effect   = "Allow"
      Action   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"]
      Resource = aws_sqs_queue.jobs.arn
    },
    {
      # What no worker survived ends as a dead letter in the store.
      Sid      = "DeadLetters"
      Effect   = "Allow"
      Action   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
      Resource = aws_sqs_queue.dead_letters.arn
    },
  ]

  lifecycle_statements = {
    for group, arn in local.group_arns : group => [
      {
        Sid      = "Lifecycle"
        Effect   = "Allow"
        Action   = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
        Resource = arn
      },
      {
        # Which group a node is in, and which hook holds it. They name no resource.
        Sid      = "LifecycleLook"
        Effect   = "Allow"
        Action   = ["autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeLifecycleHooks"]
        Resource = "*"
      },
    ]
  }

  instances_assume = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.${local.partition == "aws-cn" ? "amazonaws.com.cn" : "amazonaws.com"}" }
    }]
  })
}

resource "aws_iam_role" "controllers" {
  name               = "${local.controller_group}-${local.region}"
  description        = "Nodes of ${var.name} that take calls"
  assume_role_policy = local.instances_assume
  tags               = local.tags
}

resource "aws_iam_role_policy" "controllers" {
  name = "node"
  role = aws_iam_role.controllers.id
  policy = jsonencode({
    Version = "2012-10-17"
    # Without workers they run functions too.
    Statement = concat(
      local.node_statements,
      local.take_statements,
      [for statement in local.run_statements : statement if !local.has_workers],
      [local.tables_statement.controllers],
      local.lifecycle_statements.controllers,
    )
  })
}

resource "aws_iam_instance_profile" "controllers" {
  name = aws_iam_role.controllers.name
  role = aws_iam_role.controllers.name
  tags = local.tags
}

resource "aws_iam_role" "workers" {
  count = local.has_workers ? 1 : 0

  name               = "${local.worker_group}-${local.region}"
  description        = "Nodes of ${var.name} that run functions"
  assume_role_policy = local.instances_assume
  tags               = local.tags
}

resource "aws_iam_role_policy" "workers" {
  count = local.has_workers ? 1 : 0

  name = "node"
  role = aws_iam_role.workers[0].id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat(local.node_statements, local.run_statements, [local.tables_statement.workers], local.lifecycle_statements.workers)
  })
}

resource "aws_iam_instance_profile" "workers" {
  count = local.has_workers ? 1 : 0

  name = aws_iam_role.workers[0].name
  role = aws_iam_role.workers[0].name
  tags = local.tags
}
